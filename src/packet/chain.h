/*
 * Chains from a configuration file: ports, stages and rules written down in YAML become pipelines
 * that are ready to run. A file has one chain (`chain`), or several with names that share ports
 * (`chains`): a firewall has one a direction. doc/packets.md describes every key. Whatever is wrong
 * in the file is told with its line and its place ("firewall.yaml:12: chain[2].acl.rules[0].proto:
 * ...").
 *
 * Thread  a chain belongs to one thread.
 */
#pragma once

#include "packet/pipeline.h"

struct kn_chain;

/* A port of the file that shall be something else this time. */
struct kn_chain_port {
	struct kn_view name;
	struct kn_view spec;	/* "pcap:FILE", relative to the working folder; "null" */
	struct kn_port *opened; /* or a port that is open already, for good: the chain owns it once
				 * it is loaded. Ports that the file calls `interface` need one */
};

struct kn_chain_config {
	const char *path;		   /* of the YAML file; a name for messages when text is given */
	const struct kn_view *text;	   /* its content, when it was read already; or NULL */
	const struct kn_chain_port *ports; /* n_ports of them; may be NULL */
	size_t n_ports;
	bool dry; /* check everything, open no port: cannot be run */
};

enum { KN_CHAIN_PORTS_MAX = 16, KN_CHAIN_LINES_MAX = 8, KN_CHAIN_NAME_MAX = 31 };

/**
 * Read a file and build what it describes. File names in it are relative to its folder.
 *
 * ret     kn_chain_free() it
 *
 * Errors  EINVAL: told with line and place; what opening the files said; ENOMEM
 */
kn_must_use int kn_chain_load(const struct kn_chain_config *config, struct kn_chain **ret,
			      struct kn_err *err);

/** Release the pipelines, the ports and the pools; NULL is fine. */
void kn_chain_free(struct kn_chain *chain);
KN_AUTO(kn_chain_free, struct kn_chain *);

/** How many chains the file has: at least one. */
size_t kn_chain_lines(const struct kn_chain *chain);

/** The pipeline of one of them, borrowed, in the file's order. */
struct kn_pipeline *kn_chain_pipeline(struct kn_chain *chain, size_t line);

/** Its name, borrowed; "chain" where the file has one without a name. */
const char *kn_chain_name(const struct kn_chain *chain, size_t line);

/** True when the file says `chains`, not `chain`. */
bool kn_chain_named(const struct kn_chain *chain);

/** A port that is in use, by number from 0, borrowed; NULL behind the last. */
struct kn_port *kn_chain_port_at(struct kn_chain *chain, size_t i);

/** How many rules all its ACLs have together. */
uint32_t kn_chain_rules(const struct kn_chain *chain);

/** How many stages it has, of all chains together. */
size_t kn_chain_stages(const struct kn_chain *chain);

/**
 * Everything counted, as JSON: kn_pipeline_report() of the one chain, or {chains: {NAME: report}};
 * and {ports: {NAME: ...}} where ports are interfaces, with what kn_port_look() found last.
 *
 * Returns a new reference, or NULL when memory is out.
 */
json_t *kn_chain_report(struct kn_chain *chain);

/**
 * "NAME=SPEC" of a command line as a port override; views into text.
 *
 * Errors  EINVAL
 */
kn_must_use int kn_chain_port_parse(const char *text, struct kn_chain_port *ret,
				    struct kn_err *err);
