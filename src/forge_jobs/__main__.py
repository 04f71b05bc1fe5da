"""`python -m forge_jobs`."""

from forge_jobs.cli.main import main

if __name__ == "__main__":
    main()
