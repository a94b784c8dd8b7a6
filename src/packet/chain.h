/*
 * Chains from a configuration file: ports, stages and rules written down in YAML become a pipeline
 * that is ready to run. doc/packets.md describes every key. Whatever is wrong in the file is told
 * with its line and its place ("firewall.yaml:12: chain[2].acl.rules[0].proto: ...").
 *
 * Thread  a chain belongs to one thread.
 */
#pragma once

#include "packet/pipeline.h"

struct kn_chain;

/* A port of the file that shall be something else this time. */
struct kn_chain_port {
	struct kn_view name;
	struct kn_view spec; /* "pcap:FILE", relative to the working folder; "null" */
};

struct kn_chain_config {
	const char *path;		   /* of the YAML file */
	const struct kn_chain_port *ports; /* n_ports of them; may be NULL */
	size_t n_ports;
	bool dry; /* check everything, open no port: cannot be run */
};

/**
 * Read a file and build what it describes. File names in it are relative to its folder.
 *
 * ret     kn_chain_free() it
 *
 * Errors  EINVAL: told with line and place; what opening the files said; ENOMEM
 */
kn_must_use int kn_chain_load(const struct kn_chain_config *config, struct kn_chain **ret,
			      struct kn_err *err);

/** Release the pipeline, the ports and the pool; NULL is fine. */
void kn_chain_free(struct kn_chain *chain);
KN_AUTO(kn_chain_free, struct kn_chain *);

/** The pipeline, borrowed. */
struct kn_pipeline *kn_chain_pipeline(struct kn_chain *chain);

/** How many rules all its ACLs have together. */
uint32_t kn_chain_rules(const struct kn_chain *chain);

/** How many stages it has. */
size_t kn_chain_stages(const struct kn_chain *chain);

/**
 * "NAME=SPEC" of a command line as a port override; views into text.
 *
 * Errors  EINVAL
 */
kn_must_use int kn_chain_port_parse(const char *text, struct kn_chain_port *ret,
				    struct kn_err *err);
