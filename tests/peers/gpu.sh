#!/usr/bin/env bash
# The checks and the benchmarks that need a GPU, on a machine that builds nothing: it takes binaries.
#
#   cargo build --release
#   cargo test --no-run                      # names the binaries of the library's tests and of tests/gpu.rs
#   tests/peers/gpu.sh --mdlm target/release/mdlm --test target/debug/deps/gpu-… --test target/debug/deps/mdlm-… \
#       [--quick] [--sanitize] [--record tests/bench/DATE-gpu.json]
#
# Runs, each with a time limit of its own so that one failure does not lose the rest: what there is (`mdlm doctor`), parity
# (the tests given; with --sanitize under compute-sanitizer), then `mdlm bench` and the PyTorch peer in turns. --quick keeps
# within nine minutes. Wants python3 with torch. Exits with 3 where there is no GPU.
set -uo pipefail
cd "$(dirname "$0")/../.."

mdlm=target/release/mdlm tests=() quick="" sanitize="" record=""
while [ $# -gt 0 ]; do
  case "$1" in
    --mdlm) mdlm=$2; shift ;;
    --test) tests+=("$2"); shift ;;
    --record) record=$2; shift ;;
    --quick) quick=--quick ;;
    --sanitize) sanitize=yes ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift
done

if ! command -v nvidia-smi >/dev/null || ! nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; then
  echo "no GPU is to be seen here (nvidia-smi): nothing was run" >&2
  exit 3
fi

# NVRTC and cublasLt may lie where pip puts them.
folders=$(python3 - <<'PYTHON'
import glob, os, sysconfig
roots = {sysconfig.get_paths()["purelib"]}
try:
    import torch
    roots.add(os.path.dirname(os.path.dirname(torch.__file__)))
except ImportError:
    pass
found = [os.path.dirname(path) for root in sorted(roots) for name in ("libnvrtc.so.*", "libcublasLt.so.*")
         for path in glob.glob(f"{root}/nvidia/*/lib/{name}")]
print(":".join(dict.fromkeys(found)))
PYTHON
)
export LD_LIBRARY_PATH="${folders:+$folders:}${LD_LIBRARY_PATH:-}"

# There is a GPU: what cannot use it fails, instead of being skipped.
export MDLM_TEST_REQUIRE=gpu

status=0
step() { # limit in seconds, title, command…
  local limit=$1 title=$2
  shift 2
  echo; echo "== $title"
  timeout "$limit" "$@" || { echo "-- $title: failed ($?)"; status=1; }
}

step 120 "what there is" "$mdlm" doctor --device cuda
for test in ${tests[@]+"${tests[@]}"}; do
  # Of the library's tests the one on a real device; the others compile kernels for the CPU. All of tests/gpu.rs; under the
  # sanitizer, which is slow, what runs at the smallest shape.
  filter=() small=(resume_and_repeated_runs sampling_draws)
  case "$(basename "$test")" in mdlm-*) filter=(device_network_agrees) small=(device_network_agrees) ;; esac
  step 180 "parity: $(basename "$test")" "$test" --test-threads 1 --nocapture ${filter[@]+"${filter[@]}"}
  if [ -n "$sanitize" ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck; do
      step 240 "$tool: $(basename "$test")" compute-sanitizer --tool "$tool" --error-exitcode 9 \
        "$test" --test-threads 1 "${small[@]}"
    done
  fi
done
step 1800 "benchmarks" python3 tests/peers/gpu.py --mdlm "$mdlm" $quick ${record:+--record "$record"}
exit $status
