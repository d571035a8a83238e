"""Writes a Llama of random weights for llama.cpp: its text is noise, its engine is real. tiny_model.py FILE

Its tokens are bytes and printable characters.
"""

import sys

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, INNER = 2, 64, 2, 192
random = np.random.default_rng(0)
tokens = [("<unk>", 2), ("<s>", 3), ("</s>", 3)]
tokens += [(f"<0x{byte:02X}>", 6) for byte in range(256)]
tokens += [(chr(code), 1) for code in range(0x21, 0x7F)] + [("\u2581", 1)]

file = gguf.GGUFWriter(sys.argv[1], "llama")
file.add_context_length(2048)
file.add_embedding_length(WIDTH)
file.add_block_count(LAYERS)
file.add_feed_forward_length(INNER)
file.add_head_count(HEADS)
file.add_head_count_kv(HEADS)
file.add_layer_norm_rms_eps(1e-5)
file.add_rope_dimension_count(WIDTH // HEADS)
file.add_vocab_size(len(tokens))
file.add_tokenizer_model("llama")
file.add_token_list([token.encode() for token, _ in tokens])
file.add_token_scores([-float(number) for number in range(len(tokens))])
file.add_token_types([kind for _, kind in tokens])
file.add_unk_token_id(0)
file.add_bos_token_id(1)
file.add_eos_token_id(2)


def weights(name, *shape):
    file.add_tensor(f"{name}.weight", random.normal(0, 0.08, shape).astype(np.float32))


def ones(name):
    file.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))


weights("token_embd", len(tokens), WIDTH)
weights("output", len(tokens), WIDTH)
ones("output_norm")
for layer in range(LAYERS):
    ones(f"blk.{layer}.attn_norm")
    ones(f"blk.{layer}.ffn_norm")
    for part in ("q", "k", "v", "output"):
        weights(f"blk.{layer}.attn_{part}", WIDTH, WIDTH)
    weights(f"blk.{layer}.ffn_gate", INNER, WIDTH)
    weights(f"blk.{layer}.ffn_up", INNER, WIDTH)
    weights(f"blk.{layer}.ffn_down", WIDTH, INNER)
file.write_header_to_file()
file.write_kv_data_to_file()
file.write_tensors_to_file()
file.close()
