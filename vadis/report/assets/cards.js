// A card for each video: name, facts, pictures, timeline, labels.

const MOST_STRETCHES = 8; // listed where there is no hover, on paper

function card(video, meant) {
  const element = make("article", "video");
  element.append(heading(video), facts(video));
  for (const flag of video.flags ?? []) element.append(make("p", "note", DATA.flags[flag] ?? flag));
  if (video.error) element.append(make("p", "why", video.error[1]));
  if (video.pictures) element.append(pictures(video));
  if (video.pieces) element.append(timeline(video, (time) => play(video, time), meant));
  if (video.labels) element.append(labels(video));
  else if (!video.error && video.status !== "skipped") element.append(make("p", "quiet", "no label is above the threshold"));
  if (video.pieces) element.append(legend(video), spoken(video));
  return element;
}

function heading(video) {
  const title = make("h3"), cut = video.path.lastIndexOf("/") + 1;
  title.append(make("span", "folder", video.path.slice(0, cut)), video.path.slice(cut));
  return title;
}

function facts(video) {
  const line = make("p", "facts"), known = [];
  if (video.seconds !== undefined) known.push(length(video.seconds));
  if (video.begin !== undefined) known.push(`${clock(video.begin)}–${clock(video.end)}`);
  if (video.size) known.push(video.size);
  if (video.fps) known.push(`${video.fps} fps`);
  if (video.status !== "ok") {
    line.append(make("span", `badge ${video.status}`, STATUSES.find(([status]) => status === video.status)[1]));
    if (known.length) line.append(", ");
  }
  line.append(known.join(", "));
  if (!video.url) line.append(make("span", "", `${line.textContent ? ", " : ""}file not found when this page was made`));
  return line;
}

function pictures(video) {
  const row = make("div", "pictures");
  for (const [time, jpeg] of video.pictures) {
    const button = make("button"), image = make("img");
    image.src = `data:image/jpeg;base64,${jpeg}`;
    image.alt = "";
    image.height = 72;
    button.type = "button";
    button.setAttribute("aria-label", `Play ${video.path} from ${clock(time)}`);
    button.append(image, make("span", "", clock(time)));
    button.addEventListener("click", () => play(video, time));
    row.append(button);
  }
  return row;
}

function bar(share, colour) {
  const track = make("span", "bar"), filled = make("i");
  filled.style.width = `${Math.max(0.5, 100 * share)}%`;
  if (colour) filled.style.background = colour;
  track.setAttribute("aria-hidden", "true");
  track.append(filled);
  return track;
}

function labels(video) {
  const list = make("ul", "found-labels");
  for (const [label, score, led] of video.labels) {
    const line = make("li"), share = label === UNCLEAR ? [make("span"), make("span")] : [bar(score, COLOURS[label]), make("span", "number", percent(score))];
    line.append(chip(label), make("span", "name", DATA.labels[label]), ...share, make("span", "number quiet", led ? `for ${length(led)}` : ""));
    list.append(line);
  }
  return list;
}

// Every other label of the timeline, in the order of time, with the seconds that it leads.
function legend(video) {
  const seconds = new Map(), listed = new Set((video.labels ?? []).map(([label]) => label)), line = make("p", "legend");
  for (const [start, end, label] of video.pieces) if (!listed.has(label)) seconds.set(label, (seconds.get(label) ?? 0) + end - start);
  for (const [label, led] of seconds) {
    const entry = make("span");
    entry.append(chip(label), ` ${DATA.labels[label]} `, make("span", "quiet", length(led)));
    line.append(entry);
  }
  return line;
}

// The timeline in words, for paper.
function spoken(video) {
  const longest = [...video.pieces].sort((a, b) => b[END] - b[START] - (a[END] - a[START])).slice(0, MOST_STRETCHES);
  const told = longest.sort((a, b) => a[START] - b[START]).map(([start, end, label, score]) => `${clock(start)}–${clock(end)} ${named(label, score)}`);
  const paragraph = make("p", "stretches", told.join("; "));
  paragraph.setAttribute("aria-hidden", "true");
  return paragraph;
}
