import { row } from "../../engine/questions";
import { numbers } from "../../engine/safetensors";
import { head, opened, query } from "../../state/session";
import { fixed, t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";

export function Pipeline() {
  const now = opened.value;
  const [layer, index] = head.value;
  const at = query.value;
  const asked = useAnswer(now && ((engine, options) => row(engine, { trace: now.id, layer, head: index, row: at }, options)), [now?.id, layer, index, at]);
  const texts = t.value.pipeline;
  if (!now) return <p class="quiet">{t.value.frame.opening}</p>;
  return (
    <>
      <h2>{texts.heading(`${layer}.${index}`)}</h2>
      <p>{texts.lead(now.tokens[at] ?? "")}</p>
      <Ready asked={asked}>
        {(file) => {
          const scores = numbers(file, "scores");
          const weights = numbers(file, "weights");
          return (
            <table>
              <thead>
                <tr>
                  <th scope="col" />
                  <th scope="col">{texts.scores}</th>
                  <th scope="col">{texts.weights}</th>
                </tr>
              </thead>
              <tbody>
                {now.tokens.map((token, i) => (
                  <tr>
                    <th scope="row">{token}</th>
                    <td class="figure">{fixed(scores[i]!, 3)}</td>
                    <td class="figure">{fixed(weights[i]!, 3)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          );
        }}
      </Ready>
    </>
  );
}
