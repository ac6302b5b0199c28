#!/usr/bin/env bash
# Prometheus does not accept `metric_name_validation_scheme: legacy` in a job alone, though the option exists there: the
# job inherits an escaping scheme that contradicts it. It needs `metric_name_escaping_scheme` beside it, or its place in
# `global`.
# Version: Debian sid's promtool 3.5.3+ds1-6. Needs: Debian.
# Does: checks the three configurations.
# Output:
#   in the job alone: refused
#   with an escaping scheme: accepted
#   in global: accepted
. "$(dirname "$0")/common.sh"
SUITE=sid unpack promtool=3.5.3+ds1-6
try() {
  if root/usr/bin/promtool check config --syntax-only "$2" > log 2>&1; then
    echo "$1: accepted"
  else
    echo "$1: refused"
  fi
}
printf 'scrape_configs:\n- job_name: a\n  metric_name_validation_scheme: legacy\n' > job.yml
{ cat job.yml; echo '  metric_name_escaping_scheme: underscores'; } > both.yml
printf 'global: {metric_name_validation_scheme: legacy}\nscrape_configs:\n- job_name: a\n' > global.yml
{ try "in the job alone" job.yml; try "with an escaping scheme" both.yml; try "in global" global.yml; } | check
