#!/usr/bin/env bash
# The text parser of prometheus_client renames counters: a counter without the suffix `_total`, which the text format
# allows, gets it. A program that reads a page with it and looks for the sample by its name finds nothing.
# Version: prometheus_client 0.26.0 (PyPI). Needs: python3 with venv.
# Does: parses one counter, and prints the names.
# Output:
#   family jobs, sample jobs_total
. "$(dirname "$0")/common.sh"
python_with prometheus_client==0.26.0
venv/bin/python - > said <<'END'
from prometheus_client.parser import text_string_to_metric_families
for family in text_string_to_metric_families("# TYPE jobs counter\njobs 3\n"):
    print(f"family {family.name}, sample {family.samples[0].name}")
END
check < said
