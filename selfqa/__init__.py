"""Self-QA: from filings to grounded instruction data."""
