"""The ground floor of the stack: records, configuration, runs, models, scoring, generation, reports."""
