# Runs Bash cells for the interpreter server: the start-up file of an interactive shell without a terminal, as only such
# a shell abandons a cell when it is interrupted and goes on.
#
# File descriptor 0 is a socket. A cell comes in as one command, which may set `__restore` to what is done after it; once
# it has ended, its status goes out as a line.

PS1= PS2= PROMPT_COMMAND=__report __restore=
set +o history +H
unset HISTFILE
shopt -u checkwinsize

__report() {
  local status=$?
  eval "$__restore" </dev/null
  __restore=
  printf '%d\n' "$status" >&0
}
