"""Enqueueing inside your own transaction: a job that exists if and only if what you wrote beside it does.

One module per library, each with `enqueue` and `enqueue_bulk`. They write on your connection, in your open
transaction, and never commit, roll back, retry, change a setting or notify anybody. Workers find the job by polling,
or at once if they are woken after your commit: see `wake` of the SQLAlchemy and Django modules, elsewhere call
`storage.wake([queue])`.
"""
