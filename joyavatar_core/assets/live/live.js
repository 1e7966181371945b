// Plays /live.mp4 through MediaSource, close to its newest frame, and says how it goes.
"use strict";

const KEEP_SECONDS = 20; // played video that stays in the buffer
const LATE_SECONDS = 4; // further behind the newest frame than this: jump
const LEAD_SECONDS = 0.8; // where to jump to: a block and a little

const video = document.getElementById("video");
const state = document.getElementById("state");
const sound = document.getElementById("sound");

sound.onclick = () => {
  video.muted = !video.muted;
  sound.textContent = video.muted ? "Sound on" : "Sound off";
  video.play();
};

// The codecs by name, as MediaSource wants them, read from the header's avcC box; sound where there is an mp4a box.
function mimeOf(head) {
  const text = String.fromCharCode(...head);
  const at = text.indexOf("avcC") + 5;
  const profile = [...head.slice(at, at + 3)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `video/mp4; codecs="avc1.${profile}${text.includes("mp4a") ? ",mp4a.40.2" : ""}"`;
}

// The length of ftyp + moov at the front of these bytes, 0 while they are not whole.
function headLength(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let end = 0;
  while (end + 8 <= bytes.length) {
    const name = String.fromCharCode(...bytes.slice(end + 4, end + 8));
    end += view.getUint32(end);
    if (name === "moov") return end <= bytes.length ? end : 0;
  }
  return 0;
}

function joined(a, b) {
  const whole = new Uint8Array(a.length + b.length);
  whole.set(a);
  whole.set(b, a.length);
  return whole;
}

const settled = (buffer) => new Promise((done) => buffer.addEventListener("updateend", done, { once: true }));

async function append(buffer, bytes) {
  buffer.appendBuffer(bytes);
  await settled(buffer);
  const ranges = buffer.buffered;
  if (!ranges.length) return;
  const start = ranges.start(0);
  const end = ranges.end(ranges.length - 1);
  if (video.currentTime < start || end - video.currentTime > LATE_SECONDS) {
    video.currentTime = Math.max(start, end - LEAD_SECONDS);
  }
  if (video.currentTime - start > 2 * KEEP_SECONDS) {
    buffer.remove(start, video.currentTime - KEEP_SECONDS);
    await settled(buffer);
  }
  video.play().catch(() => {});
}

async function watch() {
  const answer = await fetch("live.mp4");
  if (!answer.ok) throw new Error((await answer.text()).trim());
  const source = new MediaSource();
  video.src = URL.createObjectURL(source);
  await new Promise((done) => source.addEventListener("sourceopen", done, { once: true }));
  const reader = answer.body.getReader();
  let head = new Uint8Array();
  let buffer = null;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    if (buffer) {
      await append(buffer, value);
      continue;
    }
    head = joined(head, value);
    const length = headLength(head);
    if (length) {
      buffer = source.addSourceBuffer(mimeOf(head.slice(0, length)));
      await append(buffer, head);
    }
  }
  if (source.readyState === "open") source.endOfStream();
}

const WORDS = { loading: "loading the avatar ...", waiting: "waiting for the voice ..." };
let asked = 0;

// Before there is a picture: what the server is busy with, asked once a second.
async function ask() {
  if (Date.now() - asked < 1000) return;
  asked = Date.now();
  const facts = await (await fetch("status.json")).json();
  if (!video.buffered.length && WORDS[facts.state]) state.textContent = WORDS[facts.state];
}

function tell() {
  const ranges = video.buffered;
  if (!ranges.length) return void ask().catch(() => {});
  const behind = ranges.end(ranges.length - 1) - video.currentTime;
  state.textContent = `${video.currentTime.toFixed(1)} s, ${behind.toFixed(1)} s behind the newest frame`;
}

const clock = setInterval(tell, 250);
watch()
  .then(() => "the stream has ended")
  .catch((problem) => `no stream: ${problem.message}`)
  .then((text) => {
    clearInterval(clock);
    state.textContent = text;
  });
