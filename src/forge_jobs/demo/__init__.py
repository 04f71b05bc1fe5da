"""The demo: real files over real HTTP, worker processes that crash and stop, and a check of what became of it all."""
