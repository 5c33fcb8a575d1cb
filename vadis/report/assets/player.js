// The player: a video from a moment on, with its label and its timeline, in a dialog.

const PLAYER = byId("player"), FILM = byId("player-video"), PROBLEM = byId("player-problem");
let playing = null, playerLine = null, startAt = 0;

function play(video, time) {
  playing = video;
  startAt = time;
  byId("player-title").textContent = video.path;
  playerLine = video.pieces ? timeline(video, seek) : null;
  byId("player-timeline").replaceChildren(...(playerLine ? [playerLine] : []));
  PROBLEM.hidden = true;
  FILM.hidden = !video.url;
  if (!PLAYER.open) PLAYER.showModal();
  follow(time);
  if (!video.url) {
    tell("the file was not where the results say when this page was made");
    return;
  }
  FILM.src = `${video.url}#t=${time.toFixed(2)}`;
  FILM.play().catch(() => {}); // it may be refused, or another one is wanted; errors come as events
}

function seek(time) {
  if (FILM.hidden) return;
  FILM.currentTime = time;
  FILM.play().catch(() => {});
}

function tell(why) {
  FILM.hidden = true;
  PROBLEM.hidden = false;
  byId("player-why").textContent = `Cannot be played here: ${why}. The moment is ${clock(startAt, true)} in`;
  byId("player-path").value = playing.path;
}

byId("player-copy").addEventListener("click", () => {
  byId("player-path").select();
  document.execCommand("copy"); // what the newer interface may refuse to a page from the disk
});

function follow(time) {
  if (!playing?.pieces) { byId("player-now").replaceChildren(); return; }
  const piece = playing.pieces[pieceAt(playing, time)];
  byId("player-now").replaceChildren(...(time >= piece[START] && time <= piece[END] ? [chip(piece[LABEL]), inWords(piece)] : []));
  playerLine?.follow(time);
}

FILM.addEventListener("loadedmetadata", () => {
  if (Math.abs(FILM.currentTime - startAt) > 0.3) FILM.currentTime = startAt;
  if (!FILM.videoWidth) tell("this browser has no decoder for its pictures; open the file in a video player");
});
FILM.addEventListener("timeupdate", () => { if (PROBLEM.hidden) follow(FILM.currentTime); });
FILM.addEventListener("error", () => {
  if (FILM.hasAttribute("src")) tell("this browser cannot read this kind of file, or it is gone; open it in a video player");
});
PLAYER.addEventListener("close", () => { FILM.pause(); FILM.removeAttribute("src"); FILM.load(); hideTip(); });
byId("player-close").addEventListener("click", () => PLAYER.close());
PLAYER.addEventListener("click", (event) => { if (event.target === PLAYER) PLAYER.close(); });
