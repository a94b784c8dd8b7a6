#include "base/args.h"

enum { WIDTH = 96, HELP_COLUMN = 28 };

/* Words of text, wrapped, each line but the first indented to column. */
static void add_wrapped(struct kn_buf *b, struct kn_view text, size_t column)
{
	struct kn_view word;
	size_t at = column;

	while (kn_view_split(&text, ' ', &word)) {
		if (word.len == 0)
			continue;
		if (at > column && at + 1 + word.len > WIDTH) {
			kn_buf_printf(b, "\n%*s", (int)column, "");
			at = column;
		} else if (at > column) {
			kn_buf_adds(b, " ");
			at++;
		}
		kn_buf_add_view(b, word);
		at += word.len;
	}
	kn_buf_adds(b, "\n");
}

static void add_row(struct kn_buf *b, char letter, const char *name, const char *value,
                    const char *help, const char *env)
{
	kn_auto(kn_buf_fini) struct kn_buf left = KN_BUF_INIT, right = KN_BUF_INIT;

	kn_buf_printf(&left, letter ? "  -%c, " : "      ", letter);
	kn_buf_printf(&left, "--%s%s%s", name, value ? " " : "", value ? value : "");
	kn_buf_adds(&right, help);
	if (env)
		kn_buf_printf(&right, " [%s]", env);
	if (left.failed || right.failed) {
		b->failed = true;
		return;
	}
	kn_buf_add_view(b, kn_buf_view(&left));
	if (left.len + 2 > HELP_COLUMN)
		kn_buf_printf(b, "\n%*s", HELP_COLUMN, "");
	else
		kn_buf_printf(b, "%*s", (int)(HELP_COLUMN - left.len), "");
	add_wrapped(b, kn_buf_view(&right), HELP_COLUMN);
}

void kn_args_help(const struct kn_command *cmd, struct kn_buf *ret)
{
	kn_buf_printf(ret, "Usage: %s %s\n\n%s\n\nOptions:\n", cmd->name,
	              cmd->usage ? cmd->usage : "", cmd->summary);
	for (size_t i = 0; i < cmd->n_args; i++) {
		const struct kn_arg *a = &cmd->args[i];
		const char *value = a->value ? a->value : "VALUE";
		add_row(ret, a->letter, a->name, a->kind == KN_ARG_FLAG ? NULL : value, a->help,
		        a->env);
	}
	bool h_is_free = true;
	for (size_t i = 0; i < cmd->n_args; i++)
		h_is_free = h_is_free && cmd->args[i].letter != 'h';
	add_row(ret, h_is_free ? 'h' : 0, "help", NULL, "Show this page.", NULL);
	if (cmd->more)
		kn_buf_printf(ret, "\n%s%s", cmd->more,
		              kn_view_ends(kn_view_of(cmd->more), KN_VIEW("\n")) ? "" : "\n");
}
