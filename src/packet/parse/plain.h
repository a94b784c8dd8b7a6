/*
 * The fast half of the parser. Private to packet/parse.
 */
#pragma once

#include "packet/parse.h"

/* Fill the columns of live lanes that hold plain frames; returns those lanes. */
kn_lanes kn_parse_plain(struct kn_batch *b);
