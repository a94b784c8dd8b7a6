/* For the host's unit tests alone: names that its C library has get a prefix (test/unit/machine/sdk.c). */
#pragma once

#define memcpy  sdk_memcpy
#define memmove sdk_memmove
#define memset  sdk_memset
#define memcmp  sdk_memcmp
#define memchr  sdk_memchr
#define strlen  sdk_strlen
#define strnlen sdk_strnlen
#define strcmp  sdk_strcmp
#define strncmp sdk_strncmp
#define strchr  sdk_strchr
