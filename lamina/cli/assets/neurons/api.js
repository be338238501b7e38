// What the program on this machine is asked. Addresses are relative: the token in front of them stays where it is.

async function answer_of(response) {
  const answer = await response.json().catch(() => ({ error: "The answer could not be read." }));
  if (!response.ok) throw new Error(answer.error ?? `The program answered ${response.status}.`);
  return answer;
}

const unreachable = () => new Error("The program does not answer; is it still running?");

export async function get(path, query = {}, signal = undefined) {
  const search = new URLSearchParams(query).toString();
  let response;
  try {
    response = await fetch(`api/${path}${search ? `?${search}` : ""}`, { signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  return answer_of(response);
}

/** Posts and hands every line of the answer to `line` as it comes. Aborting the signal ends the computation. */
export async function stream(path, body, line, signal) {
  let response;
  try {
    response = await fetch(`api/${path}`, {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal,
    });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) await answer_of(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const text of lines) {
      const event = JSON.parse(text);
      if (event.event === "error") throw new Error(event.error);
      line(event);
    }
  }
}
