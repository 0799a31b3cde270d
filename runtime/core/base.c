// SPDX-License-Identifier: MIT
#include "base.h"

#include <string.h>

static const struct row {
  int value;
  const char *name;
  int exit;
  const char *text;
} errors[] = {{BDK_OK, "ok", 0, "nothing went wrong"},
#define X(NAME, value, name, exit, text) {(value), (name), (exit), (text)},
              BDK_ERRORS(X)
#undef X
};

#define COUNT (sizeof errors / sizeof errors[0])

static const struct row *find(int error) {
  for (size_t i = 0; i < COUNT; i++)
    if (errors[i].value == error) return &errors[i];
  return NULL;
}

const char *bdk_error_name(int error) {
  const struct row *e = find(error);
  return e ? e->name : "invalid";
}

const char *bdk_error_text(int error) {
  const struct row *e = find(error);
  return e ? e->text : "an error of the operating system";
}

int bdk_error_from_name(const char *name) {
  for (size_t i = 0; name && i < COUNT; i++)
    if (strcmp(errors[i].name, name) == 0) return errors[i].value;
  return 0;
}

int bdk_error_exit(int error) {
  const struct row *e = find(error);
  return e ? e->exit : 1;
}
