"""A chat model of a few megabytes with random weights, for tests and measurements without a download.

    folder = write_tiny_model(tmp_path / "model")        # what MEMOS_MODELS__CHAT_MODEL can name
    model = tiny_model("qwen3", seed=1)                  # or one in memory

It says nothing sensible, but everything about it is real: architecture, tokenizer (bytes and 256 merges),
chat template, checkpoint files. Needs the extra `hf`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from memos.models.hf.model import HFModel

Family = Literal["qwen2", "qwen3", "llama"]

_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_STRIPPING = _CHATML.replace("{{ message['content'] }}", "{{ message['content'] | trim }}")
_TEXT = (
    "Ann lives in Paris and works as a nurse.\nMax is a puppy; he is allergic to chicken, the vet said.\n"
    "The user likes green tea. The meeting was moved from Monday to Thursday.\nThe answer is in the memory.\n"
    "What do you remember about the trip to the mountains?\nShe said that the train leaves at ten.\n\n"
)


@dataclass(frozen=True, slots=True)
class TinyShape:
    """The size of such a model."""

    layers: int = 2
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    inner: int = 128
    tokens_max: int = 8_192


def tiny_model(
    family: Family = "qwen2",
    *,
    seed: int = 0,
    shape: TinyShape | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    strips: bool = False,
) -> HFModel:
    """One in memory; the same seed gives the same weights. strips: a template that strips messages."""
    from memos.models.hf.model import HFModel

    model, tokenizer = _made(family, seed, shape or TinyShape(), dtype, device, strips=strips)
    return HFModel(model, tokenizer, name=f"tiny-{family}-{seed}")


def write_tiny_model(
    folder: Path, family: Family = "qwen2", *, seed: int = 0, shape: TinyShape | None = None
) -> Path:
    """One as a checkpoint on disk; returns the folder."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = _made(family, seed, shape or TinyShape(), "float32", "cpu", strips=False)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def _made(
    family: Family, seed: int, shape: TinyShape, dtype: str, device: str, *, strips: bool
) -> tuple[Any, Any]:
    import torch
    import transformers

    tokenizer = _tokenizer(strips=strips)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.tokens_max,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
        "tie_word_embeddings": False,  # else a random model repeats its last token
        "use_sliding_window": False,
    }
    if family == "qwen2":
        config = transformers.Qwen2Config(**sizes)
    elif family == "qwen3":
        config = transformers.Qwen3Config(head_dim=shape.head_dim, **sizes)
    else:
        del sizes["use_sliding_window"]
        config = transformers.LlamaConfig(head_dim=shape.head_dim, **sizes)
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=kind)
    return model, tokenizer


def _tokenizer(*, strips: bool) -> Any:
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_TEXT.splitlines(keepends=True), trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=_STRIPPING if strips else _CHATML,
        clean_up_tokenization_spaces=False,
    )
