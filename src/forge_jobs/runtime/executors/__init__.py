"""Where handlers run: on the event loop, on threads, in child processes. What an outcome means is the same on each."""
