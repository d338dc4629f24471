#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

namespace manyheads::cli {

// The words of a figure, as the page's own (viewer/src/texts) have them. {} are filled in their order.
struct FigureTexts {
  char point;  // of decimals
  const char *links_of, *best, *weight, *offset_mean, *mean;
  const char* roles[3];  // of the chapter's three links
  const char *row_of, *sum;
  const char *sum_one, *sum_two, *before, *after, *change;
  const char *grid_caption, *grid_note;
  const char *shares, *found, *always, *interval;
  const char *thumbs_caption, *thumb_one, *thumb_mean, *thumb_step, *heads_shown;
  const char *scatter_caption, *scatter_note;
  const char *clusters_caption, *clusters_note, *group_said, *apart, *alone;
  const char *mean_caption, *mean_of_all, *map_caption, *largest;
  const char *rollout_caption, *rollout_note, *rollout_causal, *most_of;
  const char *links_caption, *links_words, *links_pieces, *links_renormalised, *first_of;
  const char *why_caption, *why_facts;
  const char *distance_caption, *distance_facts, *distance_note, *distance_range;
  const char *pipeline_caption, *pipeline_q, *pipeline_k, *pipeline_products, *pipeline_row, *pipeline_mix;
  const char *tokens, *score, *head;
  const char *cut_caption, *floor, *refuses, *left_over, *shapes_caption, *x, *wq, *wk, *wv, *concat, *wo;
  const char *parameters, *work_caption, *step, *flop, *bytes, *intensity;
  const char* steps[6];
  const char *ranges_caption, *ranges_note, *distribution_caption, *distribution_note, *passages;
  const char *asking, *asked, *query_components, *key_components, *component, *over;
  const char *relations_caption, *relations_note, *to_head, *to_word, *reads, *none_reads;
};

const FigureTexts& figure_texts(bool german);

std::string filled(std::string_view pattern, std::initializer_list<std::string> values);

}  // namespace manyheads::cli
