#include <algorithm>
#include <cmath>

#include "base/format.hpp"
#include "study/plot.hpp"
#include "study/study.hpp"

namespace manyheads::study {
namespace {

using Json = nlohmann::ordered_json;

// The colours of the page `manyheads view`, and the two that Okabe and Ito's palette has beside them.
constexpr const char* kStyle = R"(
:root{--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#a8558a;--c4:#8a6d00;--w:59,31,122;--paper:#fdfdfb;--paper-2:#f4f4f0;
--line:#d9d9d2;--ink:#1d1e20;--ink-2:#55575b;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--c0:#4ea5dc;--c1:#f08a4b;--c2:#36c498;--c3:#d88fbb;--c4:#d9b83c;--w:205,188,255;
--paper:#17181b;--paper-2:#1f2125;--line:#383b41;--ink:#e9e9e5;--ink-2:#b3b5ba}}
body{font:17px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:68rem;margin:0 auto;padding:24px 16px}
h1{font-size:1.7rem;line-height:1.2}h2{font-size:1.25rem;margin-top:2.2em}h3{font-size:1rem}
p,li{max-width:46rem}small,figcaption,.note{color:var(--ink-2);font-size:.875rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line)}
td small{white-space:nowrap}th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}
.two{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26rem,100%),1fr));gap:24px}
figure{margin:0;max-width:34rem}svg{width:100%;height:auto;background:var(--paper-2);border-radius:6px}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}.end{text-anchor:end}.mid{text-anchor:middle}
.grid{stroke:var(--line);fill:none}.line{fill:none;stroke:currentColor;stroke-width:2}.bar{stroke:currentColor;stroke-width:1.5}
svg g{fill:currentColor}.band{opacity:.18;stroke:none}
.s0{color:var(--c0)}.s1{color:var(--c1)}.s2{color:var(--c2)}.s3{color:var(--c3)}.s4{color:var(--c4)}
.s1 .line{stroke-dasharray:7 3}.s2 .line{stroke-dasharray:2 3}.s3 .line{stroke-dasharray:9 3 2 3}.s4 .line{stroke-dasharray:4 2}
.serves{outline:2px solid var(--ink);outline-offset:-2px;font-weight:600}
.verdict{border-left:4px solid var(--c2);padding:2px 0 2px 12px;margin:10px 0}.refuted{border-color:var(--c1)}.weak{border-color:var(--c4)}
)";

std::string percent(double share) {
  const double size = std::abs(share);
  return base::format("{:.{}f} %", 100 * share, size < 0.1 || (size > 0.99 && size < 1) ? 2 : 1);
}

// An interval of Student's t may reach beyond what a share can be.
std::string bound(const Json& share) { return percent(std::clamp(share.get<double>(), -1.0, 1.0)); }

std::string with_interval(const Json& value) {
  return base::format("{} <small>{} to {}</small>", percent(value["mean"]), bound(value["low"]), bound(value["high"]));
}

PlotPoint point_of(double x, const Json& value) { return {x, value["mean"], value["low"], value["high"]}; }

std::string heads_word(int heads) { return heads == 1 ? "1 head" : base::format("{} heads", heads); }

std::string arm_name(const Json& arm) {
  const int layers = arm["layers"];
  return base::format("{}, d_model {}", layers == 1 ? "one layer" : "two layers", arm["d_model"].get<int>());
}

// "8", or "1 and 2" steps of a logarithm: places of head counts on the x axis.
double place_of(int heads) { return std::log2(static_cast<double>(heads)); }

class Page {
 public:
  explicit Page(const Json& report) : report_(report) {}

  std::string write() {
    out_ =
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>"
        "<title>Why several heads</title><style>" +
        std::string(kStyle) + "</style>";
    head();
    verdicts();
    by_heads();
    control();
    curves();
    served();
    heads();
    times();
    numbers();
    return out_ + "</html>\n";
  }

 private:
  template <class... Values>
  void add(fmt::format_string<Values...> pattern, const Values&... values) {
    out_ += base::format(pattern, values...);
  }

  void head() {
    add("<h1>Why several heads</h1><p>Models of one layer of attention, trained on sentences to name each word's "
        "partner in four "
        "relations. They have the same parameters, first weights, sentences and steps, and differ in their heads "
        "alone.</p>");
    add("<p class='note'>{}Seed {}, {} seeds of weights and sentences, {} steps of {} sentences; manyheads {}, bits of "
        "{}. Intervals are "
        "95 %, of Student's t over seeds. All numbers lie beside this page in study.json.</p>",
        report_["quick"].get<bool>() ? "A quick run: too short to judge by. " : "",
        report_["seed"].get<std::uint64_t>(), report_["seeds"].get<int>(), report_["steps"].get<int>(),
        report_["batch"].get<int>(), report_["version"].get<std::string>(), report_["bits"].get<std::string>());
    out_ += "<h2>The sentences</h2><ul>";
    for (const Json& sentence : report_["sentences"]) add("<li>{}</li>", html_text(sentence.get<std::string>()));
    out_ +=
        "</ul><div class='wide'><table><tr><th>relation<th>pairs of the test<th>best fixed offset<th>names<th>one "
        "offset a class of words</tr>";
    for (const Json& relation : report_["relations"]) {
      add("<tr><td><b>{}</b>: {}<td>{}<td>{:+}<td>{}<td>{}</tr>", relation["name"].get<std::string>(),
          relation["meaning"].get<std::string>(), relation["test_pairs"].get<std::int64_t>(),
          relation["best_offset"].get<int>(), percent(relation["offset_accuracy"]),
          percent(relation["offset_accuracy_by_class"]));
    }
    out_ +=
        "</table></div><p class='note'>The last relation is distance alone: a fixed offset answers it by "
        "definition.</p>";
  }

  void verdicts() {
    if (report_["verdicts"].empty()) return;
    out_ +=
        "<h2>What was claimed, and what came out</h2><p>docs/study.md says what would refute each claim. It was "
        "written before the full "
        "run.</p>";
    for (const Json& verdict : report_["verdicts"]) {
      const std::string outcome = verdict["outcome"];
      add("<p class='verdict {}'><b>{}: {}</b> (d_model {})<br>{}: {}", outcome,
          html_text(verdict["claim"].get<std::string>()), outcome, verdict["d_model"].get<int>(),
          html_text(verdict["measure"].get<std::string>()), with_interval(verdict["value"]));
      if (verdict.contains("gain_of_4_heads_alone")) {
        add("; four heads gain {} with one relation and {} with all", percent(verdict["gain_of_4_heads_alone"]),
            percent(verdict["gain_of_4_heads_with_all"]));
      }
      out_ += "</p>";
    }
  }

  void figure(const Plot& plot, const std::string& caption) {
    out_ += "<figure>" + plot_svg(plot) + "<figcaption>" + caption + "</figcaption></figure>";
  }

  void head_ticks(Plot& plot, const Json& heads) const {
    plot.x_label = "heads";
    for (const Json& one : heads) {
      const int count = one["heads"];
      plot.x_ticks.push_back({place_of(count), std::to_string(count)});
    }
    plot.x_low = place_of(heads.front()["heads"]) - 0.2;
    plot.x_high = place_of(heads.back()["heads"]) + 0.2;
  }

  void by_heads() {
    out_ +=
        "<h2>Partners missed, by the number of heads</h2><p>Lower is better; the axis is logarithmic. Bars are "
        "intervals.</p>"
        "<div class='two'>";
    for (const Json& arm : report_["arms"]) {
      Plot plot;
      plot.title = "Partners missed by the number of heads, " + arm_name(arm);
      head_ticks(plot, arm["heads"]);
      int colour = 0;
      for (const Json& relation : report_["relations"]) {
        const std::string name = relation["name"];
        PlotSeries series{name, colour++, {}};
        for (const Json& one : arm["heads"])
          series.points.push_back(point_of(place_of(one["heads"]), one["relations"][name]));
        plot.series.push_back(series);
      }
      figure(plot, arm_name(arm) +
                       base::format(", {} parameters at any number of heads", arm["parameters"].get<std::int64_t>()));
    }
    out_ += "</div>";
  }

  // Lines by head count.
  template <class Point>
  std::vector<PlotSeries> series_of_heads(const Json& heads, const Point& points) const {
    std::vector<PlotSeries> all;
    int colour = 0;
    for (std::size_t h = 0; h < heads.size(); ++h) all.push_back({heads_word(heads[h]["heads"]), colour++, points(h)});
    return all;
  }

  void control() {
    const Json& rows = report_["control"];
    out_ +=
        "<h2>The control: one relation alone, then more</h2><p>With one relation one head should do. What it misses as "
        "relations are "
        "added is what several heads are for.</p><div class='two'>";
    Plot plot;
    plot.title = "Partners missed by the number of relations";
    plot.x_label = "relations learnt at once";
    plot.x_low = 0.8;
    plot.x_high = kRelations + 0.2;
    for (const Json& row : rows) {
      const int count = row["relations"];
      plot.x_ticks.push_back({count, std::to_string(count)});
    }
    plot.series = series_of_heads(rows[0]["accuracy"], [&](std::size_t h) {
      std::vector<PlotPoint> points;
      for (const Json& row : rows) points.push_back(point_of(row["relations"], row["accuracy"][h]));
      return points;
    });
    figure(plot, arm_name(report_["arms"][0]) +
                     ". Mean over the relations that a model learns; each seed begins with another one.");
    out_ += "<div class='wide'><table><tr><th>relations";
    for (const Json& one : rows[0]["accuracy"]) add("<th>{}", heads_word(one["heads"]));
    for (const Json& row : rows) {
      add("<tr><td>{}", row["relations"].get<int>());
      for (const Json& one : row["accuracy"]) add("<td>{}", percent(one["mean"]));
    }
    out_ += "</table></div></div>";
  }

  void curves() {
    out_ +=
        "<h2>Learning curves</h2><p>Partners missed of the held-out sentences, mean over relations; bands are "
        "intervals.</p><div class='two'>";
    for (const Json& arm : report_["arms"]) {
      Plot plot;
      plot.title = "Partners missed by step, " + arm_name(arm);
      plot.x_label = "steps";
      plot.bands = true;
      const int last = report_["steps"];
      plot.x_high = last;
      for (const int part : {0, 1, 2, 3, 4})
        plot.x_ticks.push_back({last * part / 4.0, std::to_string(last * part / 4)});
      plot.series = series_of_heads(arm["heads"], [&](std::size_t h) {
        std::vector<PlotPoint> points;
        for (const Json& point : arm["heads"][h]["curve"]) points.push_back(point_of(point["step"], point));
        return points;
      });
      figure(plot, arm_name(arm));
    }
    out_ += "</div>";
  }

  void served() {
    out_ +=
        "<h2>Which head serves what</h2><p>Each head of the trained models is switched off in turn. A relation's head "
        "is the one whose "
        "loss costs it most. Beside it: how often that head's largest weight lies on the partner, and what the best "
        "fixed offset of each "
        "class of words names.</p><div class='wide'><table><tr><th>models<th>relation<th>falls by<th>more than the "
        "others<th>largest weight "
        "on the partner<th>fixed offset</tr>";
    for (const Json& of : report_["heads"]) {
      if (of["heads"] == 1) continue;
      bool first = true;
      for (const Json& relation : report_["relations"]) {
        const std::string name = relation["name"];
        const Json& served = of["served"][name];
        add("<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
            first ? base::format("{}, {} <small>({:.1f} heads serve)</small>", arm_name(of), heads_word(of["heads"]),
                                 of["heads_that_serve"]["mean"].get<double>())
                  : std::string(),
            name, with_interval(served["fall"]), percent(served["fall_less_others"]["mean"]),
            percent(served["largest_weight_on_partner"]["mean"]), percent(relation["offset_accuracy_by_class"]));
        first = false;
      }
    }
    out_ += "</table></div>";
  }

  void heads() {
    out_ +=
        "<h2>The heads of the first seed</h2><p>What each relation falls by without the head, and in brackets how "
        "often the head's largest "
        "weight lies on the partner. Framed: the head that serves the relation.</p><div class='two'>";
    for (const Json& of : report_["heads"]) {
      if (of["layers"] != 1 || of["heads"] == 1 || of["heads"] > 8) continue;
      add("<div class='wide'><h3>{}, {}</h3><table><tr><th>head", arm_name(of), heads_word(of["heads"]));
      for (const Json& relation : report_["relations"]) add("<th>{}", relation["name"].get<std::string>());
      for (const Json& head : of["of_seed_0"]) {
        add("<tr><td>{}", head["head"].get<std::string>());
        for (const Json& relation : report_["relations"]) {
          const Json& cell = head["relations"][relation["name"].get<std::string>()];
          const double fall = cell["fall"];
          add("<td{} style='background:rgba(var(--w),{:.2f})'>{:.1f} ({:.0f} %)",
              cell["serves"].get<bool>() ? " class='serves'" : "", 0.45 * std::clamp(fall, 0.0, 1.0), 100 * fall,
              100 * cell["largest_weight_on_partner"].get<double>());
        }
      }
      out_ += "</table></div>";
    }
    out_ += "</div>";
  }

  void times() {
    out_ +=
        "<h2>Time and work of a step</h2><p>Forward, backward and AdamW on one thread: its processor time, the fastest "
        "of 30 in turn. The "
        "work is the same for "
        "any number of heads: each head attends with its share of the numbers. The exponentials are not: there is one "
        "for each head and "
        "pair of words.</p><div class='wide'><table><tr><th>model<th>heads<th>MFLOP<th>ms<th>over one head</tr>";
    for (const Json& time : report_["times"]) {
      add("<tr><td>{}<td>{}<td>{:.1f}<td>{:.2f}<td>{:.2f}", arm_name(time), time["heads"].get<int>(),
          time["flop_a_step"].get<double>() / 1e6, time["seconds_a_step"].get<double>() * 1e3,
          time["over_one_head"].get<double>());
    }
    out_ += "</table></div>";
  }

  void numbers() {
    out_ +=
        "<h2>Accuracy on the test</h2><div class='wide'><table><tr><th>model<th>heads<th>d_k<th>rate<th>mean<th>over "
        "one head";
    for (const Json& relation : report_["relations"]) add("<th>{}", relation["name"].get<std::string>());
    for (const Json& arm : report_["arms"]) {
      for (const Json& one : arm["heads"]) {
        add("<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}", arm_name(arm), one["heads"].get<int>(), one["d_k"].get<int>(),
            one["rate"].get<double>(), with_interval(one["accuracy"]),
            one["heads"] == arm["heads"][0]["heads"] ? std::string() : with_interval(one["over_one_head"]));
        for (const Json& relation : report_["relations"]) {
          add("<td>{}", percent(one["relations"][relation["name"].get<std::string>()]["mean"]));
        }
      }
    }
    out_ += "</table></div>";
  }

  const Json& report_;
  std::string out_;
};

}  // namespace

std::string report_html(const Json& report) { return Page(report).write(); }

std::string report_text(const Json& report) {
  std::string text = "Partners named on the test, by relation; 95 % intervals over seeds.\n\n";
  for (const Json& arm : report["arms"]) {
    text += arm_name(arm) + "\n" + base::format("{:>7} {:>5}  {:>9} {:>17}", "heads", "d_k", "mean", "interval");
    for (const Json& relation : report["relations"])
      text += base::format(" {:>9}", relation["name"].get<std::string>());
    text += "\n";
    for (const Json& one : arm["heads"]) {
      const Json& accuracy = one["accuracy"];
      text += base::format("{:>7} {:>5}  {:>9} {:>17}", one["heads"].get<int>(), one["d_k"].get<int>(),
                           percent(accuracy["mean"]), bound(accuracy["low"]) + " - " + bound(accuracy["high"]));
      for (const Json& relation : report["relations"]) {
        text += base::format(" {:>9}", percent(one["relations"][relation["name"].get<std::string>()]["mean"]));
      }
      text += "\n";
    }
    text += "\n";
  }
  text += "The control: mean accuracy by the number of relations learnt at once\n          ";
  for (const Json& one : report["control"][0]["accuracy"]) text += base::format(" {:>9}", heads_word(one["heads"]));
  text += "\n";
  for (const Json& row : report["control"]) {
    text += base::format("{:>10}", row["relations"].get<int>());
    for (const Json& one : row["accuracy"]) text += base::format(" {:>9}", percent(one["mean"]));
    text += "\n";
  }
  for (const Json& verdict : report["verdicts"]) {
    text += base::format("\n{} (d_model {}): {}", verdict["claim"].get<std::string>(), verdict["d_model"].get<int>(),
                         verdict["outcome"].get<std::string>());
  }
  return text + "\n";
}

}  // namespace manyheads::study
