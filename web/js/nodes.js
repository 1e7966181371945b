// Which nodes are this pack's, and where a node of the queue is in the open graph.
import { app } from "../../../scripts/app.js";

export const PACK = "JoyAvatar";

export const isOurs = (node) => Boolean(node?.comfyClass?.startsWith(PACK));

// "12" is node 12 of the root graph, "5:3" node 3 inside the subgraph that node 5 stands for.
export function nodeOf(executionId) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
    graph = node?.subgraph;
  }
  return node;
}
