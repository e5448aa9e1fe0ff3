"""What each option of fairseq's training parser does in teacher training: obeyed, without effect, or refused by name.

An option that would be accepted and ignored is a wrong result in silence. Therefore every option of fairseq's parser
(common ones, models, optimizers, schedules, task) is in exactly one of the tables of this file;
``tests/plugin/test_option_effects.py`` fails for one that is not. Options of a user's own plug-in are passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fairseq_l2t.teaching.options.declaration import OptionError, as_given, flag_of

__all__ = ["OBEYED", "REFUSED", "WITHOUT_EFFECT", "refuse_ignored", "without_effect"]

_OBEYED = {
    "data": "data source_lang target_lang train_subset valid_subset combine_valid_subsets dataset_impl "
    "left_pad_source left_pad_target truncate_source upsample_primary num_batch_buckets max_source_positions "
    "max_target_positions skip_invalid_size_inputs_valid_test",
    "batches": "max_tokens batch_size required_batch_size_multiple required_seq_len_multiple curriculum update_freq "
    "skip_remainder_batch fix_batches_to_gpus",
    "run": "seed cpu bf16 user_dir task arch criterion optimizer lr_scheduler lr clip_norm sentence_avg max_update "
    "validate_interval_updates save_dir help",
    "display": "no_progress_bar log_format log_file tensorboard_logdir wandb_project azureml_logging aim_repo "
    "aim_run_hash",
    "dev BLEU": "eval_bleu eval_bleu_args eval_bleu_detok eval_bleu_detok_args eval_bleu_remove_bpe "
    "eval_tokenized_bleu",
    "optimizer": "adam_betas adam_eps use_old_adam weight_decay momentum",
    "schedule": "warmup_updates warmup_init_lr force_anneal lr_shrink min_lr t_mult lr_period_updates epoch2lr "
    "update2lr end_learning_rate power total_num_update lr_deacy_period lr_decay warmup_steps hold_steps decay_steps "
    "phase_ratio init_lr_scale final_lr_scale max_lr shrink_min",
    "dropout": "dropout attention_dropout activation_dropout relu_dropout input_dropout weight_dropout "
    "encoder_dropout_in encoder_dropout_out decoder_dropout_in decoder_dropout_out",
    "encoder": "encoder_embed_path encoder_embed_dim encoder_ffn_embed_dim encoder_layers encoder_attention_heads "
    "encoder_normalize_before encoder_learned_pos encoder_freeze_embed encoder_hidden_size encoder_bidirectional "
    "encoder_conv_dim encoder_kernel_size_list encoder_glu encoder_conv_type",
    "decoder": "decoder_embed_path decoder_embed_dim decoder_ffn_embed_dim decoder_layers decoder_attention_heads "
    "decoder_normalize_before decoder_learned_pos decoder_freeze_embed decoder_hidden_size decoder_out_embed_dim "
    "decoder_output_dim decoder_attention decoder_conv_dim decoder_kernel_size_list decoder_glu decoder_conv_type",
    "model": "activation_fn weight_softmax share_decoder_input_output_embed share_all_embeddings "
    "share_input_output_embed no_token_positional_embeddings layernorm_embedding no_scale_embedding "
    "no_cross_attention cross_self_attention no_decoder_final_norm",
}
_WITHOUT_EFFECT = {
    "reading and memory": "num_workers data_buffer_size use_plasma_view plasma_path on_cpu_convert_precision "
    "empty_cache_freq export",
    "display": "log_interval reset_logging suppress_crashes eval_bleu_print_samples",
    "validation in batches": "max_tokens_valid batch_size_valid ignore_unused_valid_subsets fixed_validation_seed",
    "checkpoints of students, which are not written": "save_interval keep_interval_updates "
    "keep_interval_updates_pattern keep_last_epochs keep_best_checkpoints no_epoch_checkpoints no_last_checkpoints "
    "no_save_optimizer_state best_checkpoint_metric maximize_best_checkpoint_metric checkpoint_suffix "
    "checkpoint_shard_count load_checkpoint_on_all_dp_ranks write_checkpoints_asynchronously",
    "communication of processes, of which there is one": "distributed_backend distributed_no_spawn ddp_comm_hook "
    "bucket_cap_mb find_unused_parameters gradient_as_bucket_view fast_stat_sync heartbeat_timeout broadcast_buffers "
    "all_gather_list_size",
    "decoding": "tokenizer bpe scoring gen_subset num_shards shard_id pad eos unk moses_no_dash_splits "
    "moses_no_escape sentencepiece_model_path bpe_codes gpt2_encoder_json gpt2_vocab_bpe bpe_cased bpe_vocab_file "
    "bpe_merges bpe_vocab bpe_add_prefix_space sentencepiece_model sentencepiece_enable_sampling sentencepiece_alpha "
    "bpe_separator bert_score_lang sacrebleu_tokenizer sacrebleu_lowercase sacrebleu_char_level wer_tokenizer "
    "wer_remove_punct wer_char_level wer_lowercase",
}

OBEYED = frozenset(name for names in _OBEYED.values() for name in names.split())
"""Options that do in teacher training what they do in ``fairseq-train``."""

WITHOUT_EFFECT = frozenset(name for names in _WITHOUT_EFFECT.values() for name in names.split())
"""Options that change no number of teacher training, so that they may stand in a command line shared with
``fairseq-train``; the log names those that are given."""

_ONE_PROCESS = (
    "not supported; torchrun shares out --lives-per-update among processes; --update-freq makes larger updates"
)
_NO_CHECKPOINT = "not supported; students begin anew: --student-init gives initial weights, --resume continues a run"
_LIFE = "not supported; every student's life has --total-updates updates"
_DEV = "not supported; dev is measured every --validate-interval-updates student updates"
_HALF = "second derivatives in half precision are not accurate; use --bf16 or float32 (neither option)"
_FSDP = "not supported; belongs to --ddp-backend fully_sharded"
_ADAPTIVE = "not supported; the loss needs the plain softmax over all words"
_NOISE = "not supported; expected 0 under a teacher"
_UNUSED = "not supported; fairseq's translation models do not use it"
_SHUFFLE = "not supported; the unroll shuffles without it"
_RECOMPUTED = "not supported under a teacher"

_REASONS = {
    _ONE_PROCESS: "distributed_world_size distributed_num_procs distributed_rank distributed_init_method "
    "distributed_port nprocs_per_node slowmo_momentum slowmo_base_algorithm localsgd_frequency use_bmuf "
    "model_parallel_size pipeline_model_parallel pipeline_balance pipeline_devices pipeline_chunks "
    "pipeline_encoder_balance pipeline_encoder_devices pipeline_decoder_balance pipeline_decoder_devices "
    "pipeline_checkpoint zero_sharding base_layers base_sublayers base_shuffle block_lr block_momentum "
    "global_sync_iter warmup_iterations use_nbm average_sync",
    _FSDP: "no_reshard_after_forward fp32_reduce_scatter cpu_offload use_sharded_state not_fsdp_flatten_parameters "
    "min_params_to_wrap",
    _NO_CHECKPOINT: "restore_file finetune_from_model continue_once reset_dataloader reset_lr_scheduler reset_meters "
    "reset_optimizer optimizer_overrides",
    _LIFE: "max_epoch stop_time_hours stop_min_lr patience",
    _DEV: "validate_interval validate_after_updates max_valid_steps disable_validation save_interval_updates",
    _HALF: "fp16 memory_efficient_fp16 amp fp16_no_flatten_grads fp16_init_scale fp16_scale_window "
    "fp16_scale_tolerance min_loss_scale threshold_loss_scale amp_batch_retries amp_init_scale amp_scale_window",
    _ADAPTIVE: "adaptive_softmax_cutoff adaptive_softmax_dropout adaptive_softmax_factor tie_adaptive_weights "
    "tie_adaptive_proj",
    _NOISE: "encoder_layerdrop decoder_layerdrop quant_noise_pq quant_noise_scalar quant_noise_pq_block_size",
    _UNUSED: "adaptive_input char_inputs load_alignments",
    _SHUFFLE: "grouped_shuffling update_epoch_batch_itr update_ordered_indices_seed",
    _RECOMPUTED: "checkpoint_activations offload_activations quantization_config_path "
    "encoder_xformers_att_config decoder_xformers_att_config",
    "not supported; an exponential mean of the weights is not part of the update": "store_ema ema_decay "
    "ema_start_update ema_seed_model ema_update_freq ema_fp32",
    "not supported; use --bf16 or float32 (neither option)": "memory_efficient_bf16",
    "not supported; teacher training runs on a CPU or a GPU": "tpu",
    "not supported; the environment variable CUDA_VISIBLE_DEVICES selects the GPU": "device_id",
    "not supported; the teacher is written to --save-dir": "no_save",
    "not supported; use a profiler of PyTorch": "profile",
    "not supported; --encoder-layers gives the number of layers": "encoder_layers_to_keep",
    "not supported; --decoder-layers gives the number of layers": "decoder_layers_to_keep",
    "not supported; the moments of Adam are float32": "fp16_adam_stats",
    "not supported; a new teacher is trained; --resume continues a run": "teacher_path allow_other_teacher",
    "expected a backend that does not divide the parameters, such as pytorch_ddp": "ddp_backend",
}

REFUSED = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Options that would be ignored or give wrong hypergradients, with the reason."""

_ACCEPTED: Mapping[str, tuple[Any, ...]] = {
    # Defaults of fairseq that depend on the machine, and values that mean what teacher training does.
    "distributed_world_size": (1,),
    "distributed_num_procs": (1,),
    "nprocs_per_node": (1,),
    "ddp_backend": ("c10d", "legacy_ddp", "no_c10d", "pytorch_ddp"),
    "slowmo_base_algorithm": ("localsgd",),
}
"""The only accepted values of these options; of others, fairseq's default and values that switch the option off."""

_SET_BY_ARCHITECTURES = (
    *("encoder_layerdrop", "decoder_layerdrop", "quant_noise_pq", "quant_noise_scalar"),
    *("checkpoint_activations", "offload_activations"),
)
"""Refused options that a named architecture may switch on without being given."""


def refuse_ignored(given: Mapping[str, Any], values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuse the options of `REFUSED` that have another value than fairseq's default.

    Args:
        given: the options that are given, by name; a flag is true.
        values: all options by name, as parsed.
        defaults: fairseq's defaults by name.

    Raises:
        OptionError: names the first option, its value and the reason.
    """
    for name, value in given.items():
        if name in REFUSED and not _is_harmless(name, value, values.get(name), defaults.get(name)):
            raise _refusal(name, value)
    for name in _SET_BY_ARCHITECTURES:
        if values.get(name):
            raise _refusal(name, values[name])


def without_effect(given: Iterable[str]) -> list[str]:
    """Return the flags of the given options that have no effect on what is computed, in their order."""
    return [flag_of(name) for name in given if name in WITHOUT_EFFECT]


def _is_harmless(name: str, given: Any, parsed: Any, default: Any) -> bool:
    if name in _ACCEPTED:
        return given in _ACCEPTED[name]
    if given is True:  # a flag
        return False
    return parsed == default or (default in (None, "==SUPPRESS==") and not parsed)


def _refusal(name: str, value: Any) -> OptionError:
    shown = "" if value is True else f" {as_given(value)};"
    return OptionError(f"{flag_of(name)}:{shown} {REFUSED[name]}")
