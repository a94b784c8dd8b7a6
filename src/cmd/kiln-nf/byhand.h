/*
 * The peer of `kiln-nf bench`: the same firewall as one loop of plain C, every rule a constant in
 * the code. Private to kiln-nf.
 */
#pragma once

#include <stdint.h>

#include "packet/frame.h"

/**
 * Judge and rewrite n frames: parse, eight rules, MAC addresses swapped, TTL less one.
 *
 * Returns how many passed.
 */
uint64_t kn_by_hand(struct kn_frame *const *frames, uint32_t n);
