"""What requests and answers hold, as OpenAPI tells it. Answers themselves are made by `forge_jobs.view`."""
