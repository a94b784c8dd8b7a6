/*
 * What a sender leaves to the interface, where the interface is memory: finding out that a checksum
 * is unfinished when nobody says so, and finishing it when nobody else will. Used by ports that
 * cannot carry a kn_offload (af_xdp).
 *
 * Thread  keeps no state.
 */
#pragma once

#include "packet/frame.h"

/**
 * A TCP or UDP checksum that is only the sum of the pseudo header is what a sender stores for
 * hardware to go on from: then say so in *ret. A finished checksum has the same value once in 65536
 * frames; finishing it again gives the value that it has, if it was right.
 *
 * Returns true when there is something left to do
 */
bool kn_offload_find(const uint8_t *data, uint32_t len, struct kn_offload *ret);

/**
 * Finish the checksum in the frame.
 *
 * Returns false when that is not possible: segments would have to be cut apart, or the offsets lie
 * outside the frame
 */
bool kn_offload_finish(uint8_t *data, uint32_t len, const struct kn_offload *offload);
