/*
 * Sliding median over sensor samples: removes single outliers and keeps edges.
 *
 * In:   a JSON array of numbers, for example [20.1, 20.2, 85.0, 20.1]
 * Path: ?window=N, odd, 1 to 101; 5 when it is not given
 * Out:  a JSON array of as many numbers: each is the median of the samples around it. Towards both
 *       ends the window becomes smaller, so that it stays centred.
 *
 *     kiln build examples/denoise/denoise.c -o denoise.oci.tar --name denoise:1
 */
#include <kiln/bare.h>

enum { MAX_WINDOW = 101, DEFAULT_WINDOW = 5 };

static void refuse(struct kiln_reply *reply, const char *why)
{
	kiln_reply_status(reply, 400);
	kiln_reply_type(reply, "text/plain");
	kiln_reply_printf(reply, "%s\n", why);
}

static bool window_of(const struct kiln_request *request, size_t *ret)
{
	struct kiln_bytes text;
	uint64_t n = DEFAULT_WINDOW;

	if (kiln_query(request, "window", &text)) {
		const char *p = text.ptr, *end = text.ptr + text.len;
		if (!kiln_parse_u64(&p, end, &n) || p != end)
			return false;
	}
	*ret = n;
	return n % 2 == 1 && n <= MAX_WINDOW;
}

static const char *skip_blanks(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r'))
		p++;
	return p;
}

/* The numbers of a JSON array. Returns how many, or -1 when it is none. */
static long read_samples(struct kiln_bytes body, double *ret)
{
	const char *p = body.ptr, *end = body.ptr + body.len;
	long n = 0;

	p = skip_blanks(p, end);
	if (p == end || *p++ != '[')
		return -1;
	p = skip_blanks(p, end);
	if (p < end && *p == ']')
		return skip_blanks(p + 1, end) == end ? 0 : -1;
	for (;;) {
		if (!kiln_parse_double(&p, end, &ret[n]))
			return -1;
		n++;
		p = skip_blanks(p, end);
		if (p == end || (*p != ',' && *p != ']'))
			return -1;
		if (*p++ == ']')
			return skip_blanks(p, end) == end ? n : -1;
		p = skip_blanks(p, end);
	}
}

/* The window, kept sorted: one sample goes in where it belongs, one goes out. */
struct window {
	double at[MAX_WINDOW];
	size_t n;
};

static size_t place_of(const struct window *w, double v)
{
	size_t low = 0, high = w->n;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (w->at[middle] < v)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static void put(struct window *w, double v)
{
	size_t i = place_of(w, v);
	memmove(w->at + i + 1, w->at + i, (w->n - i) * sizeof(double));
	w->at[i] = v;
	w->n++;
}

static void take(struct window *w, double v)
{
	size_t i = place_of(w, v);
	w->n--;
	memmove(w->at + i, w->at + i + 1, (w->n - i) * sizeof(double));
}

/* How far the window reaches to each side of sample i. */
static size_t reach(size_t i, size_t n, size_t half)
{
	size_t edge = i < n - 1 - i ? i : n - 1 - i;
	return edge < half ? edge : half;
}

static void denoise(const double *in, size_t n, size_t half, struct kiln_reply *reply)
{
	struct window w = { .n = 0 };
	size_t low = 0, high = 0;     /* the window holds in[low .. high) */

	kiln_reply_adds(reply, "[");
	for (size_t i = 0; i < n; i++) {
		size_t r = reach(i, n, half);
		while (low < i - r)          /* first: the window never holds more than its size */
			take(&w, in[low++]);
		while (high < i + r + 1)
			put(&w, in[high++]);
		kiln_reply_printf(reply, i ? ",%.15g" : "%.15g", w.at[w.n / 2]);
	}
	kiln_reply_adds(reply, "]\n");
}

void kiln_handle(const struct kiln_request *request, struct kiln_reply *reply)
{
	size_t window;

	if (!window_of(request, &window)) {
		refuse(reply, "window must be an odd number from 1 to 101");
		return;
	}
	/* A number and its separator take two bytes at least. */
	double *samples = kiln_alloc((request->body.len / 2 + 1) * sizeof(double));
	if (!samples) {
		kiln_reply_status(reply, 413);
		kiln_reply_adds(reply, "more samples than fit into this instance's memory\n");
		return;
	}
	long n = read_samples(request->body, samples);
	if (n < 0) {
		refuse(reply, "the body must be a JSON array of numbers");
		return;
	}
	kiln_reply_type(reply, "application/json");
	denoise(samples, (size_t)n, window / 2, reply);
}
