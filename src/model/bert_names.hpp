#pragma once

namespace manyheads::model {

// What the files of one of BERT's kin call its parts: BERT's own names, but where a model says otherwise. The
// architecture is the same.
struct BertNames {
  const char* model_type;
  const char* prefix;  // which names of tensors may begin with

  // Keys of config.json.
  const char* hidden_size = "hidden_size";
  const char* num_hidden_layers = "num_hidden_layers";
  const char* num_attention_heads = "num_attention_heads";
  const char* intermediate_size = "intermediate_size";
  const char* hidden_act = "hidden_act";
  const char* layer_norm_eps = "layer_norm_eps";    // null: 1e-12
  const char* type_vocab_size = "type_vocab_size";  // null: the model has no segments
  const char* pad_token_id = nullptr;               // positions begin behind this one; null: at 0

  // Tensors: the layers, and the parts of each.
  const char* layers = "encoder.layer.";
  const char* query = "attention.self.query";
  const char* key = "attention.self.key";
  const char* value = "attention.self.value";
  const char* attention_output = "attention.output.dense";
  const char* attention_norm = "attention.output.LayerNorm";
  const char* intermediate = "intermediate.dense";
  const char* output = "output.dense";
  const char* output_norm = "output.LayerNorm";
};

inline constexpr BertNames kBertNames[] = {
    {.model_type = "bert", .prefix = "bert."},                                            // Devlin et al. 2018
    {.model_type = "roberta", .prefix = "roberta.", .pad_token_id = "pad_token_id"},      // Liu et al. 2019
    {.model_type = "xlm-roberta", .prefix = "roberta.", .pad_token_id = "pad_token_id"},  // Conneau et al. 2020
    {.model_type = "camembert", .prefix = "roberta.", .pad_token_id = "pad_token_id"},    // Martin et al. 2020
    {.model_type = "distilbert",                                                          // Sanh et al. 2019
     .prefix = "distilbert.",
     .hidden_size = "dim",
     .num_hidden_layers = "n_layers",
     .num_attention_heads = "n_heads",
     .intermediate_size = "hidden_dim",
     .hidden_act = "activation",
     .layer_norm_eps = nullptr,
     .type_vocab_size = nullptr,
     .layers = "transformer.layer.",
     .query = "attention.q_lin",
     .key = "attention.k_lin",
     .value = "attention.v_lin",
     .attention_output = "attention.out_lin",
     .attention_norm = "sa_layer_norm",
     .intermediate = "ffn.lin1",
     .output = "ffn.lin2",
     .output_norm = "output_layer_norm"}};

}  // namespace manyheads::model
