/*
 * kiln: every role of the platform, for a person at a terminal. A verb is a file beside this one.
 */
#include <signal.h>

#include "cmd/kiln/kiln.h"

static const struct kn_verb verbs[] = {
	{ "doctor", "what this machine can run, and what is missing", kn_verb_doctor },
	{ "up", "start a node on this machine", kn_verb_up },
	{ "down", "end it", kn_verb_down },
	{ "build", "turn C files into the image of a bare function", kn_verb_build },
	{ "login", "get a token from a node and keep it", kn_verb_login },
	{ "image import", "put a container image into the node's store", kn_verb_image_import },
	{ "image list", "images in the node's store", kn_verb_image_list },
	{ "image push", "push an image to the node's registry, or to another", kn_verb_image_push },
	{ "image pull", "let the node pull an image from another registry", kn_verb_image_pull },
	{ "image remove", "take images out of the node's store", kn_verb_image_remove },
	{ "deploy", "make functions known to the node, or change them", kn_verb_deploy },
	{ "list", "functions of the node", kn_verb_list },
	{ "describe", "everything about one function", kn_verb_describe },
	{ "invoke", "call a function", kn_verb_invoke },
	{ "scale", "keep so many instances of a function", kn_verb_scale },
	{ "secret create", "keep a secret for functions", kn_verb_secret_create },
	{ "secret update", "change a secret", kn_verb_secret_update },
	{ "secret list", "names of the node's secrets", kn_verb_secret_list },
	{ "secret remove", "remove a secret", kn_verb_secret_remove },
	{ "logs", "what a function printed", kn_verb_logs },
	{ "top", "watch what the functions of a node do", kn_verb_top },
	{ "remove", "remove functions", kn_verb_remove },
	{ "version", "the version of this program, or of a node", kn_verb_version },
};

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN); /* a reader that leaves is an error of the write */
	return kn_verbs_run("kiln", "runs functions in microVMs", verbs, KN_ARRAY_LEN(verbs), argc,
			    argv);
}
