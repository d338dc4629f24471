// Heads whose rows are alike stand together.
import { clusters } from "../../engine/heads";
import type { HeadScores, Trace } from "../../engine/questions";
import { head } from "../../state/session";
import { fixed, t } from "../../texts";
import { Picture } from "../../ui/Picture";
import { Ready } from "../../ui/Ready";
import { Slider } from "../../ui/Slider";
import { useAnswer } from "../../ui/useAnswer";
import { open, useThumbnails } from "./Grid";
import { groups } from "./state";
import { Thumb } from "./Thumb";

export function Clusters({ trace, heads }: { trace: Trace; heads: HeadScores[] }) {
  const texts = t.value.heads;
  const most = Math.min(24, heads.length);
  const count = Math.min(groups.value, most);
  const asked = useAnswer((engine, options) => clusters(engine, trace.id, count, options), [trace.id, count]);
  const pictures = useThumbnails(trace);
  const [layer, index] = head.value;
  return (
    <>
      <Slider label={texts.groups} value={count} least={Math.min(2, most)} most={most} onValue={(value) => (groups.value = value)} />
      <Ready asked={asked}>
        {(answer) => (
          <Picture
            caption={texts.clustersCaption(answer.clusters.length)}
            table={() => ({
              columns: [texts.group, texts.headsOf, texts.meanDistance],
              rows: answer.clusters.map((each, i) => [i + 1, each.heads.map(([l, h]) => `${l}.${h}`).join(", "), fixed(each.mean_distance, 3)]),
            })}
          >
            <div class="clusters">
              {answer.clusters.map((each, i) => (
                <section class="cluster" aria-label={texts.groupSaid(i + 1, each.heads.length)}>
                  <h4>
                    {i + 1} <span class="quiet figure">{each.heads.length > 1 ? texts.apart(fixed(each.mean_distance, 3)) : texts.alone}</span>
                  </h4>
                  <div class="thumbs small-thumbs">
                    {each.heads.map(([l, h]) => (
                      <Thumb
                        key={`${l}.${h}`}
                        scores={heads[l * trace.heads + h]!}
                        read
                        scan={null}
                        thumbnails={pictures.state === "ready" ? pictures.value : null}
                        pressed={l === layer && h === index}
                        tabbable
                        onPress={() => open([l, h])}
                      />
                    ))}
                  </div>
                </section>
              ))}
            </div>
          </Picture>
        )}
      </Ready>
      <p class="quiet small">{texts.clustersNote}</p>
    </>
  );
}
