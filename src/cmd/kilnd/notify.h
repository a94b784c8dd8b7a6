/*
 * Telling the service manager how the daemon fares (systemd's Type=notify): a datagram to the socket
 * that NOTIFY_SOCKET names. Without that variable nothing happens. Private to cmd/kilnd.
 */
#pragma once

#include "base/err.h"

/**
 * Send "READY=1", "STOPPING=1", "STATUS=..."; several are separated by newlines.
 *
 * Returns 1 when it was sent, 0 when nobody asked.
 * Errors  EINVAL, ENAMETOOLONG the variable; what sending said
 * Source  sd_notify(3)
 */
int kn_notify(const char *state, struct kn_err *err);
