// Tells on standard error which functions were running in C when the process crashes. Built by fuzz_memory.py.
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

static void tell(int number) {
    void *frames[64];
    backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
    signal(number, SIG_DFL);
    raise(number);
}

void tell_crashes(void) {
    void *frames[1];
    backtrace(frames, 1);  // loads what it needs, while there is memory
    signal(SIGSEGV, tell);
    signal(SIGBUS, tell);
    signal(SIGFPE, tell);
    signal(SIGABRT, tell);
}
