"""Everything GitHub: the job we run in, its log and summary, the REST API, workflows to start with."""
