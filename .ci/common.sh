# shellcheck shell=bash
# What .ci/run and .ci/plugins have in common: a temporary folder, and jobs beside each other.

top=$PWD
work=$(mktemp -d)
cores=$(env -u OMP_NUM_THREADS nproc) # which obeys that variable
titles=() jobs=()
leave() {
  local job
  for job in "${jobs[@]}"; do kill -- "-$job" 2> /dev/null || true; done
  rm -rf "$work"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # a process a core is faster than a process with two threads

step() { printf '\n=== %s (%s s)\n' "$1" "$SECONDS"; }

# job TITLE COMMAND...: runs it beside the others, as many as there are cores. `finish` shows what
# each printed, one after another, and ends the script if one failed.
job() {
  while (($(jobs -rp | wc -l) >= cores)); do wait -n || true; done # `finish` takes the status
  titles+=("$1")
  set -m # a process group of its own, so that `leave` reaches all of it
  (
    "${@:2}"
    echo "ended at $SECONDS s"
  ) > "$work/job-${#jobs[@]}" 2>&1 < /dev/null &
  set +m
  jobs+=($!)
}
finish() {
  local index failed=()
  for index in "${!jobs[@]}"; do
    wait "${jobs[$index]}" || failed+=("${titles[$index]}")
    printf '\n--- %s\n' "${titles[$index]}"
    cat "$work/job-$index"
  done
  titles=() jobs=()
  if [ ${#failed[@]} -gt 0 ]; then
    printf '\nfailed: %s\n' "${failed[@]}" >&2
    exit 1
  fi
}

# share ENV: it sees the packages of the python on the PATH, after its own. Only once all is
# installed, or pip would take the checkout's editable cascadezoo for the one asked for.
share() {
  echo "import site; site.addsitedir('$(purelib "${PYTHON:-python}")')" > "$(purelib "$1/bin/python")/zz_shared.pth"
}
purelib() { "$1" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }
