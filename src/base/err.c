#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char CUT[] = "...";

static void mark_cut(struct kn_err *err)
{
	memcpy(err->text + sizeof(err->text) - sizeof(CUT), CUT, sizeof(CUT));
}

/* Quoted input may hold anything; the text must stay one line that a terminal can show. */
static void flatten(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = '?';
}

int (kn_fail)(struct kn_err *err, int code, const char *fmt, ...)
{
	if (code <= 0)
		code = EIO;
	if (!err)
		return -code;

	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(err->text))
		mark_cut(err);
	flatten(err->text);
	err->code = code;
	return -code;
}

int (kn_while)(struct kn_err *err, const char *fmt, ...)
{
	if (!err)
		return -EIO;

	char inner[KN_ERR_TEXT];
	memcpy(inner, err->text, sizeof(inner));

	va_list ap;
	va_start(ap, fmt);
	int n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
	va_end(ap);

	if (n >= 0 && n < (int)sizeof(err->text)) {
		size_t left = sizeof(err->text) - (size_t)n;
		if (snprintf(err->text + n, left, ": %s", inner) >= (int)left)
			mark_cut(err);
	} else {
		mark_cut(err);
	}
	flatten(err->text);
	if (err->code <= 0)
		err->code = EIO;
	return -err->code;
}

const char *kn_err_text(const struct kn_err *err)
{
	return err ? err->text : "";
}
