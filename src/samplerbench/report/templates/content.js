// Script and content are compressed, which makes the page a third as large.
const unpacked = async (name) => {
  const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).text();
};
const content = JSON.parse(await unpacked("content"));
