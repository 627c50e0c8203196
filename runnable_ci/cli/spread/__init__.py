"""`run --run-id ID --step NAME`: the jobs of a run that is spread over several."""
