// The round trip of npm's @huggingface/hub: usage hub.mjs REPO.
import assert from "node:assert/strict";
import {
  commit, createRepo, deleteRepo, downloadFile, fileDownloadInfo, fileExists, listCommits, listFiles,
  listModels, modelInfo, repoExists, uploadFiles, whoAmI,
} from "@huggingface/hub";

const hubUrl = process.env.HF_ENDPOINT;
const accessToken = process.env.HF_TOKEN;
const name = process.argv[2];
const repo = { type: "model", name };
const common = { repo, hubUrl, accessToken };

const me = await whoAmI({ hubUrl, accessToken });
assert.equal(me.name, "admin");
assert.equal(await repoExists(common), false);
const { repoUrl } = await createRepo(common);
assert.ok(repoUrl.endsWith(name), repoUrl);

// Bytes that do not compress, the same in each run.
const bytes = new Uint8Array(11_000_000);
let state = 1;
for (let i = 0; i < bytes.length; i++) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  bytes[i] = state >>> 24;
}
await uploadFiles({
  ...common,
  commitTitle: "everything",
  useXet: process.env.USE_XET === "1",
  files: [
    { path: "README.md", content: new Blob(["---\nlicense: mit\n---\n# From JavaScript\n"]) },
    { path: "weights/model.bin", content: new Blob([bytes]) },
    { path: "config.json", content: new Blob(["{}"]) },
  ],
});

assert.equal(await fileExists({ ...common, path: "config.json" }), true);
assert.equal(await fileExists({ ...common, path: "absent.json" }), false);
const files = [];
for await (const file of listFiles({ ...common, recursive: true })) files.push(file);
const large = files.find((file) => file.path === "weights/model.bin");
assert.equal(large.size, bytes.length);
assert.ok(large.lfs, "the large file is an LFS file");
const info = await fileDownloadInfo({ ...common, path: "weights/model.bin" });
assert.equal(info.size, bytes.length);
for (const xet of [false, true]) {
  const blob = await downloadFile({ ...common, path: "weights/model.bin", xet });
  const got = new Uint8Array(await blob.arrayBuffer());
  assert.equal(Buffer.compare(Buffer.from(got), Buffer.from(bytes)), 0, `download with xet ${xet}`);
}
const part = await downloadFile({ ...common, path: "weights/model.bin", xet: false });
const slice = new Uint8Array(await part.slice(1_000_000, 1_000_100).arrayBuffer());
assert.equal(Buffer.compare(Buffer.from(slice), Buffer.from(bytes.slice(1_000_000, 1_000_100))), 0);

const titles = [];
for await (const entry of listCommits(common)) titles.push(entry.title);
assert.equal(titles[0], "everything");
const models = [];
for await (const model of listModels({ hubUrl, accessToken, search: { owner: "admin" } })) models.push(model.name);
assert.ok(models.includes(name), models);
assert.equal((await modelInfo({ hubUrl, accessToken, name })).name, name);
await commit({ ...common, title: "less", operations: [{ operation: "delete", path: "config.json" }] });
assert.equal(await fileExists({ ...common, path: "config.json" }), false);
await deleteRepo(common);
assert.equal(await repoExists(common), false);
console.log("javascript done");
