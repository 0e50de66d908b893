#!/usr/bin/env bash
# Times seeless on one GPU: models of real shape with random weights (no downloads), untouched against each method at its
# paper's budgets. Ends in results/gpu_bench.jsonl, whose lines say what made them, and results/gpu_bench.png.
#
#   scripts/gpu_bench.sh                                # goes on where it was stopped
#   scripts/gpu_bench.sh --minutes 4                    # begins no part after so many minutes
#   scripts/gpu_bench.sh --parts llava-1.5,qwen3-vl     # these alone
#   scripts/gpu_bench.sh --list                         # what it would run
#   scripts/gpu_bench.sh --device cpu --scale 1/8       # tries it where there is no GPU
#
# What follows `--` is added to every `seeless bench`: `-- --rounds 1 --layers 4`. Needs `seeless[cli,plot]`.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-.venv/bin/python}
device=cuda scale=1 minutes=8 only="" output=results/gpu_bench.jsonl list="" more=()
while [ $# -gt 0 ]; do
    case $1 in
        --device | --scale | --minutes | --output)
            [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
            declare "${1#--}=$2"
            shift 2
            ;;
        --parts)
            [ $# -ge 2 ] || { echo "error: --parts needs a value" >&2; exit 2; }
            only=$2
            shift 2
            ;;
        --list) list=yes && shift ;;
        --) shift && more=("$@") && break ;;
        *)
            echo "error: $1 is no option; there are --device, --scale, --minutes, --parts, --output, --list, -- ..." >&2
            exit 2
            ;;
    esac
done

first=fastervlm,vispruner,visionzip,divprune,prumerge_plus,fastv,priortr,pyramiddrop,sparsevlm
few=fastervlm,vispruner,visionzip,fastv,priortr,pyramiddrop
declare -A parts=(
    [llava-1.5]="--arch llava-1.5-7b --batch 1,8 --strategies $first --keep 192,64"
    [llava-1.5-static]="--arch llava-1.5-7b --cache static --answer 32 --strategies fastervlm,fastv --keep 64"
    [llava-next]="--arch llava-next-7b --image-size 672x672 --batch 1,8 --strategies $few --keep 0.11"
    [qwen2.5-vl]="--arch qwen2.5-vl-7b --image-size 2016x2016 --strategies fastervlm,divprune,fastv,priortr --keep 0.22,0.11"
    [qwen3-vl]="--arch qwen3-vl-8b --image-size 1024x1024 --strategies fastervlm,divprune,fastv,priortr --keep 0.22,0.11"
    [video-llava]="--arch video-llava-7b --frames 8 --strategies fastervlm,vidcom2,fastv,pyramiddrop --keep 0.22"
    [llava-1.5-flash]="--arch llava-1.5-7b --attention flash_attention_2 --batch 1,8 --strategies fastervlm,fastv --keep 64"
)
order=(llava-1.5 llava-next qwen2.5-vl qwen3-vl video-llava llava-1.5-static)
if "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('flash_attn') is None)"; then
    order+=(llava-1.5-flash)
fi
if [ -n "$only" ]; then
    IFS=, read -ra order <<<"$only"
fi
for part in "${order[@]}"; do
    [ -n "${parts[$part]:-}" ] || { echo "error: no part is called $part; there are ${!parts[*]}" >&2; exit 2; }
done

kind=(--device "$device" --scale "$scale" --rounds 3)
[ "$device" = cpu ] || kind+=(--dtype bfloat16)
# Parts that are done count for the same code and the same options only.
state=$(printf '%s\n' "$(git rev-parse HEAD 2>/dev/null || true)" "$(git diff HEAD -- src 2>/dev/null || true)" "${kind[@]}" "${more[@]}" | sha256sum | cut -c1-12)
done_in=${BUILD:-build/gpu_bench}/$state
[ -n "$list" ] || mkdir -p "$done_in" "$(dirname "$output")"
left=()
for part in "${order[@]}"; do
    read -ra asked <<<"${parts[$part]}"
    command=("$PYTHON" -m seeless.cli.main bench "${asked[@]}" "${kind[@]}" "${more[@]}")
    if [ -n "$list" ]; then
        echo "$part: ${command[*]}"
    elif [ -e "$done_in/$part.jsonl" ]; then
        echo "$part: done before"
    elif [ $SECONDS -ge $((minutes * 60)) ]; then
        left+=("$part")
    else
        echo "$part: ${command[*]}"
        rm -f "$done_in/$part.part"
        "${command[@]}" --output "$done_in/$part.part"
        mv "$done_in/$part.part" "$done_in/$part.jsonl"
    fi
done
[ -z "$list" ] || exit 0

ready=()
for part in "${order[@]}"; do
    [ ! -e "$done_in/$part.jsonl" ] || ready+=("$done_in/$part.jsonl")
done
if [ ${#ready[@]} -gt 0 ]; then
    cat "${ready[@]}" >"$done_in/all"
    mv "$done_in/all" "$output"
    "$PYTHON" -m seeless.cli.main plot "$output" --output "${output%.jsonl}.png"
fi
if [ ${#left[@]} -gt 0 ]; then
    echo "after $minutes minutes ${left[*]} is left; the same command goes on there" >&2
    exit 1
fi
