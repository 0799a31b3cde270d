// SPDX-License-Identifier: MIT
#include "supervisor.h"

#include <errno.h>
#include <lauxlib.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

enum { CHILD_FD = 3, NICE = 5 };

// posix_spawn, since a fork would copy the tables of a server's memory while its clients wait. Every other descriptor
// of ours is closed on exec. 0 or an errno.
static int spawn(pid_t *pid, const char *argument, int fd) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attr;
  char *const argv[] = {(char *)"bodkin", (char *)argument, NULL};
  int error = posix_spawn_file_actions_init(&actions);
  if (error) return error;
  error = posix_spawnattr_init(&attr);
  if (error) goto no_attr;
  // Of its own group, so that Ctrl-C on the terminal reaches the server alone, which then ends it.
  error = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
  if (!error) error = posix_spawnattr_setpgroup(&attr, 0);
  if (!error) error = posix_spawn_file_actions_adddup2(&actions, fd, CHILD_FD);
  if (!error) error = posix_spawn(pid, "/proc/self/exe", &actions, &attr, argv, environ);
  posix_spawnattr_destroy(&attr);
no_attr:
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

int bdk_supervisor_child(lua_State *L) {
  const char *argument = luaL_checkstring(L, 1);
  int pair[2];
  int error = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 ? 0 : errno;
  if (!error) {
    pid_t pid = 0;
    error = spawn(&pid, argument, pair[1]);
    close(pair[1]);
    if (!error) {
      lua_pushinteger(L, pid);
      lua_pushinteger(L, pair[0]);
      return 2;
    }
    close(pair[0]);
  }
  lua_pushnil(L);
  lua_pushstring(L, strerror(error));
  lua_pushliteral(L, "invalid");
  return 3;
}

int bdk_supervisor_end(lua_State *L) {
  pid_t pid = (pid_t)luaL_checkinteger(L, 1);
  luaL_argcheck(L, pid > 1, 1, "a child's pid expected");
  // Until it is waited for, its number is no other process's.
  if (waitpid(pid, NULL, WNOHANG) != 0) return 0;
  kill(pid, SIGKILL);
  while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) continue;
  return 0;
}

int bdk_supervisor_background(lua_State *L) {
  (void)L;
  setpriority(PRIO_PROCESS, 0, NICE);
  return 0;
}
