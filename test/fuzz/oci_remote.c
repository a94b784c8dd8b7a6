/* What a registry sends before it is trusted, and the file of credentials. */
#include "fuzz.h"

#include "oci/remote/private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct kn_view text = fuzz_view(data, size);
	static struct kn_remote_login login;
	struct challenge c;

	if (challenge_parse(text, &c, NULL) == 0)
		must(!c.bearer || c.realm[0]);
	if (kn_remote_login_parse(text, &login, NULL) == 0)
		must(login.user[0] && !strchr(login.user, ':'));
	(void)!kn_remote_login_find(text, KN_VIEW("r.example:5000/team/app"), &login, NULL);
	(void)kn_remote_is_loopback(text);
	return 0;
}
