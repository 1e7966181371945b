// What nodes and templates say, in the page's language: web/texts/<language>.json maps an English line with {} for its
// values to the translated one with {0}, {1} …; what is not listed stays English.
import { app } from "../../../scripts/app.js";
import { isOurs } from "./nodes.js";

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
let patterns = [];

export function translated(text) {
  return String(text)
    .split("\n")
    .map((line) => {
      for (const [pattern, target] of patterns) {
        const found = pattern.exec(line);
        if (found) return target.replace(/\{(\d+)\}/g, (_, index) => translated(found[Number(index) + 1] ?? ""));
      }
      return line;
    })
    .join("\n");
}

app.registerExtension({
  name: "joyavatar.Language",
  async init() {
    const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? app.ui?.settings?.getSettingValue?.("Comfy.Locale");
    if (!language || language === "en") return;
    const answer = await fetch(new URL(`../texts/${language}.json`, import.meta.url));
    if (!answer.ok) return;
    const words = (english) => english.replaceAll("{}", "").length; // the most specific first
    patterns = Object.entries(await answer.json())
      .sort(([a], [b]) => words(b) - words(a))
      .map(([english, target]) => [new RegExp(`^${english.split("{}").map(escaped).join("(.*?)")}$`), target]);
  },
  // Titles, labels and notes of a template; what a user wrote is not listed, so it stays.
  afterConfigureGraph() {
    const { nodes, groups } = app.graph;
    if (!patterns.length || !nodes.some(isOurs)) return;
    for (const titled of [...nodes, ...groups]) if (titled.title) titled.title = translated(titled.title);
    for (const labelled of nodes.flatMap((node) => [...(node.inputs ?? []), ...(node.widgets ?? [])]))
      if (labelled.label) labelled.label = translated(labelled.label);
    for (const note of nodes.filter((node) => ["MarkdownNote", "Note"].includes(node.type)))
      for (const widget of note.widgets ?? []) if (typeof widget.value === "string") widget.value = translated(widget.value);
  },
});
