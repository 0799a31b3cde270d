// SPDX-License-Identifier: MIT
// The program. Signals live here and nowhere else: a handler writes the signal's name as a line into a
// pipe, and a script reads that pipe on its loop. Handlers, unlike blocked or ignored signals, are not
// inherited by the programs a script starts.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "http.h"
#include "supervisor.h"

#define FILES 65536u

static int signal_pipe[2] = {-1, -1};

static const struct {
  int number;
  const char *line;
} watched[] = {{SIGINT, "INT\n"}, {SIGTERM, "TERM\n"}, {SIGHUP, "HUP\n"}};
static struct sigaction before[sizeof watched / sizeof *watched];

static void on_signal(int number) {
  int saved = errno;
  for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
    // A full pipe already holds enough of them; nothing can be done about the rest.
    if (watched[i].number == number && write(signal_pipe[1], watched[i].line, strlen(watched[i].line)) < 0) break;
  }
  errno = saved;
}

static void on_pipe(int number) { (void)number; }

// host.signals([gently]) -> descriptor of the pipe, the caller's | nil, message. Once, until end_signals. From then on
// SIGINT, SIGTERM and SIGHUP arrive there as the lines INT, TERM and HUP; a second SIGINT or SIGTERM ends the process
// at once, for a script that does not answer. gently: what is ignored (nohup, say) stays so. [-0, +(1|3), e]
static int host_signals(lua_State *L) {
  if (signal_pipe[1] >= 0) return luaL_error(L, "signals were asked for already");
  if (pipe2(signal_pipe, O_CLOEXEC | O_NONBLOCK) != 0) return luaL_fileresult(L, 0, NULL);
  for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    if (watched[i].number != SIGHUP) action.sa_flags |= (int)SA_RESETHAND;
    sigaction(watched[i].number, NULL, &before[i]);
    if (!lua_toboolean(L, 1) || before[i].sa_handler != SIG_IGN) sigaction(watched[i].number, &action, NULL);
  }
  lua_pushinteger(L, signal_pipe[0]);
  return 1;
}

// host.end_signals(): they do what they did before host.signals. [-0, +0, -]
static int host_end_signals(lua_State *L) {
  (void)L;
  if (signal_pipe[1] < 0) return 0;
  for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) sigaction(watched[i].number, &before[i], NULL);
  close(signal_pipe[1]);
  signal_pipe[1] = -1;
  return 0;
}

// host.is_terminal(descriptor) -> boolean. [-0, +1, e]
static int host_is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

// host.pid() -> integer. [-0, +1, -]
static int host_pid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

// host.private_dir(make) -> a directory below /tmp that is this user's and open to nobody else; made, with `make`, when
// it is not there | nil, message. Whatever else somebody put at its name is left alone. [-0, +(1|2), e]
static int host_private_dir(lua_State *L) {
  struct stat st;
  char path[40];
  snprintf(path, sizeof path, "/tmp/bodkin-%lu", (unsigned long)geteuid());
  if (lua_toboolean(L, 1) && mkdir(path, 0700) < 0 && errno != EEXIST) return luaL_fileresult(L, 0, path);
  if (lstat(path, &st) < 0) return luaL_fileresult(L, 0, path);
  lua_pushnil(L);
  if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
    lua_pushfstring(L, "%s is not a directory of this user's alone", path);
    return 2;
  }
  lua_pushstring(L, path);
  return 1;
}

// host.fifo(path) -> descriptor of the reading end of a FIFO that it makes there, the caller's; its end comes once
// whoever opened it to write is gone | nil, message. [-0, +(1|2), e]
static int host_fifo(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  if (mkfifo(path, 0600) < 0) return luaL_fileresult(L, 0, path);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return luaL_fileresult(L, 0, path);
  lua_pushinteger(L, fd);
  return 1;
}

// host.exec(words): this process becomes the program words[1], found by PATH. Comes back only to say nil, message.
// [-0, +2, e]
static int host_exec(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  size_t n = lua_rawlen(L, 1);
  luaL_argcheck(L, n >= 1, 1, "a program expected");
  const char **words = lua_newuserdatauv(L, (n + 1) * sizeof *words, 0);
  for (size_t i = 0; i < n; i++) {
    luaL_argcheck(L, lua_rawgeti(L, 1, (lua_Integer)i + 1) == LUA_TSTRING, 1, "strings expected");
    words[i] = lua_tostring(L, -1); // which the table keeps
    lua_pop(L, 1);
  }
  words[n] = NULL;
  execvp(words[0], (char *const *)words);
  return luaL_fileresult(L, 0, words[0]);
}

// A server over TCP wants a descriptor for each client, and the soft limit is 1,024 for the sake of select(), which
// nothing here uses.
static void more_files(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= FILES) return;
  files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(int argc, char **argv) {
  static const luaL_Reg functions[] = {
      {"signals", host_signals}, {"end_signals", host_end_signals},         {"is_terminal", host_is_terminal},
      {"pid", host_pid},         {"private_dir", host_private_dir},         {"fifo", host_fifo},
      {"exec", host_exec},       {"child", bdk_supervisor_child},           {"end_child", bdk_supervisor_end},
      {"http", bdk_http_open},   {"background", bdk_supervisor_background}, {NULL, NULL}};
  struct sigaction ignore = {.sa_handler = on_pipe, .sa_flags = SA_RESTART};
  sigaction(SIGPIPE, &ignore, NULL);
  setvbuf(stdout, NULL, _IOLBF, 0);
  more_files();
  lua_State *L = bdk_host_new(functions);
  if (!L) return 1;
  int code = bdk_host_run(L, "bodkin.cli", argc, argv);
  lua_close(L);
  if (fflush(stdout) != 0) code = code ? code : 1;
  return code;
}
