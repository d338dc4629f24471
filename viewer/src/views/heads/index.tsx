import { heads } from "../../engine/questions";
import { chosenHead } from "../../state/app";
import { head, opened } from "../../state/session";
import { t } from "../../texts";
import { Ready } from "../../ui/Ready";
import { useAnswer } from "../../ui/useAnswer";

export function Heads() {
  const now = opened.value;
  const asked = useAnswer(now && ((engine, options) => heads(engine, now.id, options)), [now?.id]);
  const texts = t.value.heads;
  if (!now) return <p class="quiet">{t.value.frame.opening}</p>;
  const [layer, index] = head.value;
  return (
    <>
      <h2>{texts.heading}</h2>
      <Ready asked={asked}>
        {(answer) => (
          <table>
            <thead>
              <tr>
                <th scope="col">{texts.head}</th>
                <th scope="col">{texts.roles}</th>
              </tr>
            </thead>
            <tbody>
              {answer.heads.map((each) => (
                <tr>
                  <th scope="row">
                    <button
                      type="button"
                      class="plain figure"
                      aria-pressed={each.layer === layer && each.head === index}
                      onClick={() => (chosenHead.value = [each.layer, each.head])}
                    >
                      {each.layer}.{each.head}
                    </button>
                  </th>
                  <td>{each.roles.join(", ")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Ready>
    </>
  );
}
