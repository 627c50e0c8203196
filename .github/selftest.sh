#!/usr/bin/env bash
# Plays one part of the self-test in a workflow run of its own, and what is done to that run from outside:
# `rerun` fails at its first attempt and is re-run by GitHub; `artifact` too, with debug logging, and what it resumes is an
# artifact, as its registry is down; `cancel` is cancelled in the middle of a step.
set -euo pipefail
part="$1"
mark="$part-$GITHUB_RUN_ID-$GITHUB_RUN_ATTEMPT"

gh workflow run selftest.yml --ref "$GITHUB_REF_NAME" -f part="$part" -f mark="$mark"
for _ in $(seq 60); do
    sleep 5
    id="$(gh run list --workflow selftest.yml --event workflow_dispatch --json databaseId,displayTitle \
        --jq ".[] | select(.displayTitle | endswith(\"$mark\")) | .databaseId")"
    [ -z "$id" ] || break
done
[ -n "$id" ]

case "$part" in
rerun)
    gh run watch "$id" > /dev/null
    [ "$(gh run view "$id" --json conclusion --jq .conclusion)" = failure ]
    runnable-ci rerun-failed "$id" --watch
    ;;
artifact)
    gh run watch "$id" > /dev/null
    [ "$(gh run view "$id" --json conclusion --jq .conclusion)" = failure ]
    gh run rerun "$id" --failed --debug
    until [ "$(gh run view "$id" --json attempt --jq .attempt)" = 2 ]; do sleep 5; done
    gh run watch "$id" > /dev/null
    [ "$(gh run view "$id" --json conclusion --jq .conclusion)" = success ]
    gh run view "$id" --log > log
    grep -q "attempt 2 resumes run" log
    grep -q "debug: POST localhost:9/" log
    ;;
cancel)
    until [ "$(gh run view "$id" --json jobs --jq '[.jobs[] | select(.status == "in_progress")] | length')" = 1 ]; do
        sleep 5
    done
    sleep 60 # the step sleeps for ten minutes
    gh run cancel "$id"
    gh run watch "$id" > /dev/null
    runnable-ci pull "ghcr.io/${GITHUB_REPOSITORY,,}/runs:$mark"
    runnable-ci show "$mark" --json | jq -e '.status == "FAIL" and .steps.first.status == "SUCCESS"'
    ;;
esac
