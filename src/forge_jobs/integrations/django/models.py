"""No models: the tables belong to forge-jobs, which migrates them itself. But Django tells only apps that have this
module of a `migrate`.
"""
