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
  if (video.pieces) element.append(spoken(video));
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
  for (const [label, score, , led] of video.labels) {
    const line = make("li"), name = make("span", "name", DATA.labels[label]);
    name.title = DATA.labels[label];
    line.append(chip(label), name, bar(score / 1000, COLOURS[label]), make("span", "number", percent(score)));
    line.append(make("span", "number quiet", led ? `leads ${length(led)}` : ""));
    list.append(line);
  }
  return list;
}

// The timeline in words, for paper.
function spoken(video) {
  const longest = stretches(video).sort((a, b) => b[1] - b[0] - (a[1] - a[0])).slice(0, MOST_STRETCHES);
  const told = longest.sort((a, b) => a[0] - b[0]).map(([start, end, label, score]) => `${clock(start)}–${clock(end)} ${DATA.labels[label]} ${percent(score)}`);
  const paragraph = make("p", "stretches", told.join("; "));
  paragraph.setAttribute("aria-hidden", "true");
  return paragraph;
}
