// The page: totals, filters, and the cards of the videos that are wanted, a page at a time.

const SHOWN_TOTALS = 12;
const wish = { words: "", meant: null, score: 0, shortest: null, longest: null, statuses: new Set(), reason: null, order: "given" };
let found = DATA.videos, page = 0, allLabels = false;

function totals() {
  const count = (status) => DATA.videos.filter((video) => video.status === status).length;
  const hours = DATA.videos.reduce((sum, video) => sum + (video.seconds ?? 0), 0), line = byId("totals");
  byId("title").textContent = document.title;
  line.append(make("b", "", counted(DATA.videos.length, "video")), `, ${duration(hours)}, `);
  line.append(make("b", "", counted(LEADS.filter((lead, label) => lead.videos && label !== UNCLEAR).length, "label")));
  for (const [status, word, kind] of [["partial", "partial", "warn"], ["error", "not labelled", "bad"], ["skipped", "skipped", ""]]) {
    if (count(status)) line.append(", ", make("b", kind, count(status).toLocaleString("en")), ` ${word}`);
  }
  byId("made").textContent = [...DATA.models.map((name) => `labelled by ${name}`), `page made by vadis ${DATA.version}`].join("; ");
}

function total(name, amount, share, colour, pressed, choose) {
  const item = make("li"), button = make("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(pressed));
  button.append(make("span", "name", name), make("span", "amount", amount), bar(share, colour));
  button.addEventListener("click", choose);
  item.append(button);
  return item;
}

// New items in a list; the one at whose place the keyboard is stays under it.
function refilled(list, items) {
  const place = [...list.children].findIndex((item) => item.contains(document.activeElement));
  list.replaceChildren(...items);
  if (place >= 0) list.children[Math.min(place, items.length - 1)]?.firstElementChild.focus();
}

function showTotals() {
  const leading = RANKED.filter((label) => LEADS[label].videos), longest = LEADS[leading[0]]?.seconds || 1;
  const chosen = byId("label").value;
  refilled(byId("label-totals"), leading.slice(0, allLabels ? undefined : SHOWN_TOTALS).map((label) => {
    const name = DATA.labels[label], lead = LEADS[label], pressed = chosen === name;
    const amount = `${clock(lead.seconds)} · ${counted(lead.videos, "video")}`;
    return total(name, amount, lead.seconds / longest, COLOURS[label], pressed, () => choose(pressed ? "" : name, null));
  }));
  byId("all-labels").hidden = leading.length <= SHOWN_TOTALS;
  byId("all-labels").textContent = allLabels ? "Fewer labels" : `All ${leading.length.toLocaleString("en")} labels`;
  const reasons = new Map();
  for (const video of DATA.videos) if (video.error) reasons.set(video.error[0], (reasons.get(video.error[0]) ?? 0) + 1);
  const most = Math.max(...reasons.values());
  byId("failures").hidden = !reasons.size;
  refilled(byId("reasons"), [...reasons].sort((a, b) => b[1] - a[1]).map(([code, count]) => {
    const pressed = wish.reason === code;
    return total(DATA.reasons[code] ?? code, counted(count, "video"), count / most, "", pressed, () => choose("", pressed ? null : code));
  }));
}

// Show the videos of a total, all of them: nothing else is asked for any more.
function choose(label, reason) {
  const order = byId("order").value;
  byId("filters").reset();
  Object.assign(byId("order"), { value: order });
  byId("label").value = label;
  wish.reason = reason;
  changed();
}

function readFilters() {
  wish.words = byId("words").value;
  wish.meant = labelsMeant(byId("label").value);
  wish.score = Number(byId("score").value) / 100;
  for (const name of ["shortest", "longest"]) {
    wish[name] = seconds(byId(name).value);
    byId(name).setCustomValidity(Number.isNaN(wish[name]) ? "minutes and seconds, such as 1:30" : "");
  }
  wish.statuses = new Set([...document.querySelectorAll("#statuses input:checked")].map((box) => box.value));
  wish.order = byId("order").value;
  byId("score-shown").textContent = `${byId("score").value} %`;
}

function changed() {
  readFilters();
  found = wantedVideos(wish);
  page = 0;
  const isAll = found.length === DATA.videos.length;
  const hours = found.reduce((sum, video) => sum + (video.seconds ?? 0), 0);
  const reason = wish.reason ? `; ${DATA.reasons[wish.reason] ?? wish.reason}. What to do: ${DATA.next[wish.reason] ?? "look at each"}` : "";
  const nothing = wish.meant && !wish.meant.size ? "; no label has this name" : "";
  byId("found").textContent = (isAll ? `All ${counted(found.length, "video")}` : `${found.length.toLocaleString("en")} of ${counted(DATA.videos.length, "video")}, ${duration(hours)}`) + reason + nothing;
  showTotals();
  showPage();
}

function showPage() {
  const size = Number(byId("page-size").value), pages = Math.max(1, Math.ceil(found.length / size));
  page = Math.max(0, Math.min(page, pages - 1));
  hideTip();
  const cards = found.slice(page * size, (page + 1) * size).map((video) => card(video, wish.meant));
  byId("videos").replaceChildren(...(cards.length ? cards : [make("p", "none", "No video matches. Clear shows all again.")]));
  byId("page-shown").textContent = `Page ${page + 1} of ${pages}`;
  byId("previous").disabled = page === 0;
  byId("next").disabled = page === pages - 1;
  byId("pages").hidden = found.length <= 40;
}

function turn(by) {
  page += by;
  showPage();
  byId("filters").scrollIntoView();
}

function setUp() {
  for (const [status, word] of STATUSES) {
    if (!DATA.videos.some((video) => video.status === status)) continue;
    const label = make("label"), box = make("input");
    Object.assign(box, { type: "checkbox", value: status, defaultChecked: true });
    label.append(box, word);
    byId("statuses").append(label);
  }
  byId("label-names").append(...RANKED.slice(0, 1000).map((label) => Object.assign(make("option"), { value: DATA.labels[label] })));
  let waiting = 0; // typing is not held up by drawing
  byId("filters").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(changed, 120); });
  byId("filters").addEventListener("submit", (event) => { event.preventDefault(); changed(); });
  byId("clear").addEventListener("click", () => setTimeout(() => { wish.reason = null; changed(); }));
  byId("page-size").addEventListener("change", () => { page = 0; showPage(); });
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  byId("all-labels").addEventListener("click", () => { allLabels = !allLabels; showTotals(); });
  addEventListener("scroll", hideTip, { passive: true });
  totals();
  changed();
}

setUp();
